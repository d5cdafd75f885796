using System.Text.RegularExpressions;

namespace Memopt.Tool.Tests;

/// <summary>Who may use whom, as docs/architecture.md says.</summary>
public sealed class ArchitectureTests
{
    // Folders of Trainer: each uses only itself and those before it.
    private static readonly string[] order =
    [
        "Sources",
        "Config",
        "Plan",
        "Data",
        "Native",
        "Distributed",
        "Kernels",
        "Autograd",
        "Linears",
        "Models",
        "Adapters",
        "Weights",
        "Memory",
        "Optim",
        "Checkpoints",
        "Recipes",
        "Runs",
        "Api",
    ];

    private static IEnumerable<(string Path, string Text)> Sources(string project) =>
        Directory
            .EnumerateFiles(Path.Combine(Cli.Repository, "src", project), "*.cs", SearchOption.AllDirectories)
            .Select(file =>
                (Path.GetRelativePath(Path.Combine(Cli.Repository, "src", project), file), File.ReadAllText(file))
            );

    [Theory]
    [InlineData("Core", "")]
    [InlineData("Build", "")]
    [InlineData("Text", "Core")]
    [InlineData("Hub", "Core")]
    [InlineData("Tracking", "Core")]
    [InlineData("Trainer", "Core,Hub,Text,Tracking")]
    [InlineData("Tool", "Core,Hub,Text,Tracking,Trainer")]
    public void Project_references_only_allowed_assemblies(string project, string allowed)
    {
        var text = File.ReadAllText(Path.Combine(Cli.Repository, "src", project, project + ".csproj"));
        var found = Regex
            .Matches(text, "ProjectReference Include=\"\\.\\./(\\w+)/")
            .Select(match => match.Groups[1].Value)
            .Order();
        Assert.Equal(allowed.Split(',', StringSplitOptions.RemoveEmptyEntries), found);
    }

    [Theory]
    [InlineData("LiteDB", "Tracking/Store")]
    [InlineData("Azure", "Tracking/Artifacts/Azure")]
    [InlineData("Spectre.Console", "Tool")]
    [InlineData("System.CommandLine", "Tool")]
    [InlineData("Microsoft.AspNetCore", "Tool/Server")]
    [InlineData("TorchSharp", "Trainer")]
    [InlineData("Polly", "Hub", "Tracking/Artifacts/Azure")]
    [InlineData("Parquet", "Trainer/Data/Formats")]
    [InlineData("nietras", "Trainer/Data/Formats")]
    [InlineData("YamlDotNet", "Hub")]
    public void Library_is_used_only_in_its_folders(string library, params string[] doors)
    {
        var users = new[] { "Core", "Text", "Hub", "Tracking", "Trainer", "Tool", "Build" }.SelectMany(name =>
            Sources(name)
                .Where(source => Regex.IsMatch(source.Text, $@"using (static )?{Regex.Escape(library)}"))
                .Select(source => Path.Combine(name, source.Path))
        );
        Assert.All(
            users,
            user => Assert.Contains(doors, door => user.Replace('\\', '/').StartsWith(door, StringComparison.Ordinal))
        );
    }

    [Fact]
    public void Trainer_folder_uses_only_folders_before_it()
    {
        var seen = 0;
        foreach (var (path, text) in Sources("Trainer"))
        {
            var place = Array.IndexOf(order, path.Split(Path.DirectorySeparatorChar)[0]);
            Assert.True(place >= 0, $"{path} is in a folder of no known order");
            foreach (Match used in Regex.Matches(text, @"using (?:static )?Memopt\.Trainer\.(\w+)"))
            {
                Assert.True(Array.IndexOf(order, used.Groups[1].Value) <= place, $"{path} uses {used.Groups[1].Value}");
                seen++;
            }
        }
        Assert.True(seen > 20);
    }

    [Fact]
    public void Trainer_folders_that_run_without_libtorch_do_not_name_it() =>
        Assert.DoesNotContain(
            Sources("Trainer")
                .Where(source =>
                    source.Path.Split(Path.DirectorySeparatorChar)[0] is "Sources" or "Config" or "Plan" or "Data"
                ),
            source => Regex.IsMatch(source.Text, @"using (static )?TorchSharp")
        );

    [Fact]
    public void Trainer_folders_with_dispose_scopes_contain_no_await() =>
        Assert.DoesNotContain(
            Sources("Trainer")
                .Where(source =>
                    source.Path.Split(Path.DirectorySeparatorChar)[0]
                        is "Autograd"
                            or "Linears"
                            or "Models"
                            or "Adapters"
                            or "Memory"
                            or "Optim"
                            or "Recipes"
                ),
            source => Regex.IsMatch(source.Text, @"\b(await|async)\b")
        );
}
