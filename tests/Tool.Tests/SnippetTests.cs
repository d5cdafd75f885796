using System.CommandLine;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.Sweeps;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;

namespace Memopt.Tool.Tests;

/// <summary>The documents show what works: their C# compiles, their configs can be read, their XML parses, and the
/// parser of the tool accepts their command lines.</summary>
public sealed partial class SnippetTests
{
    /// <summary>What SDK projects import by default.</summary>
    private const string ImplicitUsings =
        "using System; using System.Collections.Generic; using System.IO; using System.Linq; using System.Net.Http; "
        + "using System.Threading; using System.Threading.Tasks;";

    private static readonly string[] languages = ["csharp", "json", "xml", "sh", "mermaid", "text"];

    /// <summary>The variables that a document's C# takes from its reader's program.</summary>
    private static readonly Dictionary<string, string> given = new()
    {
        ["README.md"] = "IEnumerable<Memopt.Chat> chats = []; CancellationToken stop = default;",
        ["docs/api.md"] =
            "(string Text, string Class)[] words = [], others = []; var stop = new CancellationTokenSource();",
    };

    /// <summary>A fenced block.</summary>
    private sealed record Block(string Document, int Line, string Language, string Text)
    {
        public string Place => $"{Document}:{Line}";
    }

    public static TheoryData<string> Documents() => [.. Paths("README.md", "CONTRIBUTING.md", "docs")];

    [Theory, MemberData(nameof(Documents))]
    public void Blocks_name_their_language(string document) =>
        Assert.All(Blocks(document), block => Assert.Contains(block.Language, languages));

    [Theory, MemberData(nameof(Documents))]
    public void CSharp_compiles(string document)
    {
        var blocks = Blocks(document, "csharp");
        if (blocks.Count == 0)
            return;
        // One program a document: a block may use what those before it declare. The file's lines stay the document's.
        var program = new List<string> { ImplicitUsings };
        program.AddRange(blocks.SelectMany(block => Lines(block).Where(IsUsing)));
        program.Add(given.GetValueOrDefault(document, ""));
        foreach (var block in blocks)
            program.AddRange([
                $"#line {block.Line + 1} \"{document}\"",
                .. Lines(block).Select(line => IsUsing(line) ? "" : line),
            ]);
        var compilation = CSharpCompilation.Create(
            "Snippets",
            [CSharpSyntaxTree.ParseText(string.Join('\n', program))],
            ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!)
                .Split(Path.PathSeparator)
                .Select(file => MetadataReference.CreateFromFile(file)),
            new(OutputKind.ConsoleApplication, nullableContextOptions: NullableContextOptions.Enable)
        );
        Assert.Empty(compilation.GetDiagnostics().Where(found => found.Severity == DiagnosticSeverity.Error));
    }

    [Theory, MemberData(nameof(Documents))]
    public void Configs_can_be_read(string document)
    {
        var folder = Cli.Workshop();
        foreach (var block in Blocks(document, "json"))
        {
            Assert.False(block.Text.Contains('…'), $"{block.Place}: an example is whole");
            var sweep = block.Text.Contains("\"parameters\"", StringComparison.Ordinal);
            var file = Path.Combine(folder, sweep ? "sweep.json" : "example.json");
            File.WriteAllText(file, block.Text);
            var fault = Record.Exception(() =>
            {
                if (sweep)
                    SweepFile.Read(file);
                else
                    RunConfigFile.Read(file, [], checkFiles: false);
            });
            Assert.True(fault is null, $"{block.Place}: {Said(fault)}");
        }
        Directory.Delete(folder, recursive: true);
    }

    [Theory, MemberData(nameof(Documents))]
    public void Xml_parses(string document)
    {
        foreach (var block in Blocks(document, "xml"))
        {
            var fault = Record.Exception(() => XDocument.Parse($"<Blocks>{block.Text}</Blocks>"));
            Assert.True(fault is null, $"{block.Place}: {fault?.Message}");
        }
    }

    [Theory, MemberData(nameof(Documents))]
    public void Commands_of_blocks_parse(string document) => AssertCommands(document);

    [Fact]
    public void Commands_of_templates_parse() => Assert.All(Paths("templates"), AssertCommands);

    private static void AssertCommands(string document)
    {
        foreach (var block in Blocks(document, "sh"))
            Assert.All(
                block.Text.Split('\n').SelectMany(Shell),
                command => Assert.True(Fault(command) is null, $"{block.Place}: {Fault(command)}")
            );
    }

    /// <summary>In a sentence the values may be missing; commands and options are there all the same.</summary>
    [Theory, MemberData(nameof(Documents))]
    public void Commands_of_sentences_parse(string document)
    {
        var commands = CommandSpan()
            .Matches(Read(document))
            .SelectMany(span => Shell(span.Groups["command"].Value.ReplaceLineEndings(" ")));
        foreach (var command in commands)
        {
            var fault = Fault(command);
            Assert.True(fault is null || fault.Contains("Required argument", StringComparison.Ordinal), fault);
        }
    }

    [Fact]
    public void Options_of_the_table_of_commands_exist()
    {
        var rows = Read("README.md")
            .Split("## Commands")[1]
            .Split("\n## ")[0]
            .Split('\n')
            .Where(row => row.StartsWith("| `"));
        var spans = rows.SelectMany(row => CodeSpan().Matches(row.Split(" | ")[0])).ToList();
        Assert.True(spans.Count > 15);
        foreach (var span in spans.Select(match => match.Groups["code"].Value.Replace("\\|", "|")))
        {
            var commands = Named(Program.Root(), span);
            Assert.True(commands.Count > 0, $"{span}: no such command");
            foreach (var option in OptionName().Matches(span).Select(match => match.Value))
                Assert.True(
                    commands.Exists(command => command.Options.Any(has => has.Name == option)),
                    $"{span}: no option {option}"
                );
        }
    }

    [Fact]
    public void Examples_of_the_help_parse()
    {
        var examples = All(Program.Root())
            .SelectMany(command => command.Description!.Split('\n'))
            .Where(line => line.TrimStart().StartsWith("dotnet ", StringComparison.Ordinal))
            .ToList();
        Assert.True(examples.Count > 30);
        Assert.All(examples.SelectMany(Shell), command => Assert.Null(Fault(command)));
    }

    [Fact]
    public void Wrong_commands_are_found()
    {
        string[] right = ["memopt", "eval", "--data", "a b.jsonl"];
        Assert.Equal(
            right,
            Assert.Single(Shell("cd x && dotnet memopt eval --data 'a b.jsonl' 2> log  # dotnet memopt x"))
        );
        Assert.Null(Fault(right));
        Assert.Contains("--dta", Fault(["memopt", "eval", "--dta", "x"]));
        Assert.Contains("evl", Fault(["memopt", "evl"]));
    }

    private static IEnumerable<Command> All(Command command) => command.Subcommands.SelectMany(All).Prepend(command);

    /// <summary>The commands that a row names: <c>runs list|show</c> names two.</summary>
    private static List<Command> Named(Command root, string span)
    {
        List<Command> found = [root];
        foreach (var word in span.Split(' '))
        {
            var names = word.Split('|');
            var next = found.SelectMany(command => command.Subcommands.Where(one => names.Contains(one.Name))).ToList();
            if (next.Count == 0)
                break;
            found = next;
        }
        return found[0] == root ? [] : found;
    }

    /// <summary>Why the tool refuses a command line; null when it does not.</summary>
    private static string? Fault(string[] command)
    {
        var arguments = command[1..];
        return CommandLine.Wrong(Program.Root().Parse(arguments, CommandLine.Form), arguments) is { } fault
            ? $"{string.Join(' ', command)}: {fault.Message}"
            : null;
    }

    /// <summary>The commands of a shell's line that call the tool, as words without <c>dotnet</c>.</summary>
    private static IEnumerable<string[]> Shell(string line)
    {
        var words = ShellWord()
            .Matches(line)
            .Select(match => match.Value)
            .TakeWhile(word => word[0] != '#')
            .Append(";")
            .ToList();
        var start = 0;
        while (start < words.Count)
        {
            var end = words.FindIndex(start, word => ShellEnd().IsMatch(word));
            var command = words[start..end];
            if (command is ["dotnet", "memopt", _, ..])
                yield return [.. command.Skip(1).Select(word => word.Trim(word[0] is '"' or '\'' ? word[0] : ' '))];
            start = end + 1;
        }
    }

    private static List<Block> Blocks(string document, string? language = null) =>
        [
            .. Fence()
                .Matches(Read(document))
                .Select(match => new Block(
                    document,
                    Read(document)[..match.Index].Count(c => c == '\n') + 1,
                    match.Groups["language"].Value,
                    match.Groups["text"].Value
                ))
                .Where(block => language is null || block.Language == language),
        ];

    private static string[] Lines(Block block) => block.Text.Split('\n');

    private static bool IsUsing(string line) => UsingLine().IsMatch(line);

    private static string? Said(Exception? fault) =>
        fault is UserFault { Problems: { Count: > 0 } problems } ? string.Join("; ", problems) : fault?.Message;

    private static string Read(string document) => File.ReadAllText(Path.Combine(Cli.Repository, document));

    private static IEnumerable<string> Paths(params string[] among) =>
        among
            .Select(path => Path.Combine(Cli.Repository, path))
            .SelectMany(path =>
                Directory.Exists(path) ? Directory.EnumerateFiles(path, "*.md", SearchOption.AllDirectories) : [path]
            )
            .Select(path => Path.GetRelativePath(Cli.Repository, path).Replace('\\', '/'))
            .Order(StringComparer.Ordinal);

    [GeneratedRegex(@"^```(?<language>\w*)\n(?<text>.*?)^```$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Fence();

    [GeneratedRegex(@"(?<!`)`(?<command>dotnet memopt [^`]*)`(?!`)")]
    private static partial Regex CommandSpan();

    [GeneratedRegex("`(?<code>[^`]+)`")]
    private static partial Regex CodeSpan();

    [GeneratedRegex(@"(?<=[\s\[(|])--[a-z][a-z-]*")]
    private static partial Regex OptionName();

    [GeneratedRegex(@"#.*|&&|\|\||[;|]|\d?>+|<|(?:""[^""]*""|'[^']*'|[^\s;|<>&""'])+")]
    private static partial Regex ShellWord();

    [GeneratedRegex(@"^(?:&&|\|\||[;|<]|\d?>+)$")]
    private static partial Regex ShellEnd();

    [GeneratedRegex(@"^using [\w.]+;$")]
    private static partial Regex UsingLine();
}
