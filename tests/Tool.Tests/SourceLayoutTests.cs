using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Memopt.Tool.Tests;

/// <summary>Sizes of files, methods and lines.</summary>
public sealed class SourceLayoutTests
{
    private const int MostColumns = 120,
        MostFileLines = 400,
        MostMethodLines = 60;

    private static IEnumerable<string> Files(params string[] folders) =>
        folders
            .SelectMany(folder =>
                Directory.EnumerateFiles(Path.Combine(Cli.Repository, folder), "*.cs", SearchOption.AllDirectories)
            )
            .Where(file => !file.Contains($"{Path.DirectorySeparatorChar}obj{Path.DirectorySeparatorChar}"));

    [Fact]
    public void Line_of_src_has_at_most_120_columns() =>
        Assert.Empty(
            Files("src")
                .SelectMany(file => File.ReadLines(file).Select((line, at) => (file, at, line)))
                .Where(line => line.line.Length > MostColumns)
                .Select(line => $"{line.file}:{line.at + 1}")
        );

    [Fact]
    public void Line_of_tests_outside_literals_has_at_most_120_columns()
    {
        Assert.Empty(Files("tests", "bench", "samples", "templates").SelectMany(LongLines));

        // A literal is data: it may be longer, whether it is on its line alone or not.
        static IEnumerable<string> LongLines(string file)
        {
            var tree = Parse(file);
            var literals = tree.GetRoot()
                .DescendantNodes()
                .Where(node => node is LiteralExpressionSyntax or InterpolatedStringExpressionSyntax)
                .ToList();
            return tree.GetText()
                .Lines.Where(line => line.End - line.Start > MostColumns)
                .Where(line => !literals.Exists(literal => literal.Span.IntersectsWith(line.Span)))
                .Select(line => $"{file}:{line.LineNumber + 1}");
        }
    }

    [Fact]
    public void File_of_src_has_at_most_400_lines() =>
        Assert.Empty(
            Files("src")
                .Select(file => (file, Lines: File.ReadLines(file).Count()))
                .Where(file => file.Lines > MostFileLines)
                .Select(file => $"{file.file}: {file.Lines} lines")
        );

    [Fact]
    public void Method_of_src_has_at_most_60_lines() =>
        Assert.Empty(
            Files("src")
                .SelectMany(file =>
                    Parse(file)
                        .GetRoot()
                        .DescendantNodes()
                        .Where(node =>
                            node
                                is BaseMethodDeclarationSyntax
                                    or LocalFunctionStatementSyntax
                                    or PropertyDeclarationSyntax
                        )
                )
                .Select(method => method.SyntaxTree.GetLineSpan(method.Span))
                .Select(span =>
                    (
                        span.Path,
                        Line: span.StartLinePosition.Line + 1,
                        Lines: span.EndLinePosition.Line - span.StartLinePosition.Line + 1
                    )
                )
                .Where(method => method.Lines > MostMethodLines)
                .Select(method => $"{method.Path}:{method.Line}: {method.Lines} lines")
        );

    private static SyntaxTree Parse(string file) =>
        CSharpSyntaxTree.ParseText(File.ReadAllText(file), new CSharpParseOptions(LanguageVersion.Preview), file);
}
