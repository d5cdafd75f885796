using System.Text.RegularExpressions;

namespace Memopt.Tool.Tests;

/// <summary>Who may use whom, as docs/architecture.md says.</summary>
public sealed class ArchitectureTests
{
    private static readonly string[] order =
    [
        "Plan",
        "Hub",
        "Data",
        "Native",
        "Kernels",
        "Models",
        "Adapters",
        "Weights",
        "Memory",
        "Parallel",
        "Checkpoints",
        "Recipes",
        "Api",
    ];

    private static IEnumerable<(string Path, string Text)> Sources(string project) =>
        Directory
            .EnumerateFiles(Path.Combine(Cli.Repository, "src", project), "*.cs", SearchOption.AllDirectories)
            .Select(file =>
                (Path.GetRelativePath(Path.Combine(Cli.Repository, "src", project), file), File.ReadAllText(file))
            );

    [Theory]
    [InlineData("Tracking", "")]
    [InlineData("Build", "")]
    [InlineData("Trainer", "Tracking")]
    [InlineData("Tool", "Tracking,Trainer")]
    public void Projects_reference_only(string project, string allowed)
    {
        var text = File.ReadAllText(Path.Combine(Cli.Repository, "src", project, project + ".csproj"));
        var found = Regex
            .Matches(text, "ProjectReference Include=\"\\.\\./(\\w+)/")
            .Select(match => match.Groups[1].Value)
            .Order();
        Assert.Equal(allowed.Split(',', StringSplitOptions.RemoveEmptyEntries), found);
    }

    [Theory]
    [InlineData("LiteDB", "Tracking")]
    [InlineData("Azure", "Tracking/AzureLogin", "Tracking/Blob")]
    [InlineData("Spectre.Console", "Tool")]
    [InlineData("System.CommandLine", "Tool")]
    [InlineData("Microsoft.AspNetCore", "Tool/Ui")]
    [InlineData("TorchSharp", "Trainer")]
    [InlineData("Polly", "Trainer/Hub", "Tracking/BlobArtifacts")]
    [InlineData("Parquet", "Trainer/Data")]
    [InlineData("nietras", "Trainer/Data")]
    public void A_library_stops_at_its_door(string library, params string[] doors)
    {
        var users = new[] { "Tracking", "Trainer", "Tool", "Build" }.SelectMany(name =>
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
    public void Inside_the_trainer_a_folder_uses_only_those_before_it()
    {
        var seen = 0;
        foreach (
            var (path, text) in Sources("Trainer").Where(source => source.Path.Contains(Path.DirectorySeparatorChar))
        )
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
    public void What_runs_without_libtorch_does_not_name_it() =>
        Assert.DoesNotContain(
            Sources("Trainer")
                .Where(source =>
                    source.Path.StartsWith("Plan", StringComparison.Ordinal)
                    || source.Path.StartsWith("Hub", StringComparison.Ordinal)
                    || source.Path.StartsWith("Data", StringComparison.Ordinal)
                    || source.Path.StartsWith("RunConfig", StringComparison.Ordinal)
                ),
            source =>
                source.Text.Contains("using TorchSharp", StringComparison.Ordinal)
                || source.Text.Contains("static TorchSharp", StringComparison.Ordinal)
        );

    [Fact]
    public void Nothing_awaits_where_dispose_scopes_belong_to_a_thread() =>
        Assert.DoesNotContain(
            Sources("Trainer")
                .Where(source =>
                    source.Path.Split(Path.DirectorySeparatorChar)[0] is "Models" or "Adapters" or "Recipes" or "Memory"
                ),
            source => Regex.IsMatch(source.Text, @"\b(await|async)\b")
        );

    [Fact]
    public void Only_the_tool_prints() =>
        Assert.DoesNotContain(
            Sources("Trainer").Concat(Sources("Tracking")),
            source =>
                Regex.IsMatch(
                    source.Text,
                    @"^(?!\s*///).*(\bConsole\.(Out|Error|Write)|Environment\.Exit)",
                    RegexOptions.Multiline
                )
        );

    [Fact]
    public void One_file_of_the_trainer_reads_the_environment() =>
        Assert.Equal(
            ["ProcessEnvironment.cs"],
            Sources("Trainer")
                .Concat(Sources("Tracking"))
                .Where(source => source.Text.Contains("GetEnvironmentVariable", StringComparison.Ordinal))
                .Select(source => source.Path)
        );
}
