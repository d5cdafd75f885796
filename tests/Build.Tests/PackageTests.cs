using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Build.Tests;

/// <summary>What a user gets: the packages from a local folder, in an empty directory, with only the README's commands.</summary>
public sealed class PackageTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt packages ").FullName;
    private readonly string version = "0.1.0-test." + DateTime.UtcNow.Ticks;

    private static string Repository { get; } = Above(AppContext.BaseDirectory);

    [Fact]
    public void New_build_run_list_and_a_build_that_trains_once()
    {
        var feed = Path.Combine(folder, "feed");
        foreach (var project in new[] { "src/Tool/Tool.csproj", "src/Build/Build.csproj", "templates/Memopt.Templates.csproj" })
            Run(Repository, "pack", project, "-c", "Release", "-o", feed, $"-p:Version={version}", $"-p:ArtifactsPath={Path.Combine(folder, "artifacts")}");
        Assert.True(new FileInfo(Directory.EnumerateFiles(feed, "memopt.*.nupkg").Single()).Length < 100 << 20, "the tool's package holds libtorch");
        File.WriteAllText(Path.Combine(folder, "NuGet.config"), $"<configuration><packageSources><add key=\"local\" value=\"{feed}\" /></packageSources></configuration>");
        var hive = Path.Combine(folder, "hive");
        Run(folder, "new", "install", Path.Combine(feed, $"Memopt.Templates.{version}.nupkg"), "--debug:custom-hive", hive);
        Run(folder, "new", "memopt-qlora", "-n", "MyTune", "--rank", "4", "--debug:custom-hive", hive);
        var project1 = Path.Combine(folder, "MyTune");

        Assert.Contains("0 Warning(s)", Run(project1, "build"));
        Run(project1, "tool", "restore");
        var run = JsonNode.Parse(Run(project1, "memopt", "run", "--json", "--set", "train.steps=3"))!;
        Assert.Equal(("finished", 3), ((string?)run["status"], (int)run["steps"]!));
        Assert.True(File.Exists(Path.Combine((string)run["adapter"]!, "adapter_model.safetensors")));
        Assert.Equal((string?)run["runId"], (string?)JsonNode.Parse(Run(project1, "memopt", "runs", "list", "--json"))![0]!["runId"]);
        Assert.Equal(4, (int)JsonNode.Parse(Run(project1, "memopt", "runs", "show", (string)run["runId"]!, "--json"))!["config"]!["adapter"]!["rank"]!);

        // As part of a build: trained once, skipped while nothing changes, trained again when a row does.
        var config = Path.Combine(project1, "memopt.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"epochs\": 3", "\"steps\": 2"));
        Assert.Contains("memopt: training", Run(project1, "build", "-t:MemoptTrain"));
        Assert.DoesNotContain("memopt: training", Run(project1, "build", "-t:MemoptTrain"));
        File.SetLastWriteTimeUtc(config, DateTime.UtcNow);
        Assert.DoesNotContain("memopt: training", Run(project1, "build", "-t:MemoptTrain"));
        File.AppendAllText(Path.Combine(project1, "data", "train.jsonl"), "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n");
        Assert.Contains("memopt: training", Run(project1, "build", "-t:MemoptTrain"));

        // A problem of the config is an error of the build, at its line.
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"alpha\"", "\"alhpa\""));
        Assert.Contains("memopt.json(11,", Run(project1, fails: true, "build", "-t:MemoptTrain"));
        Assert.Contains("error MEMOPT0002: adapter.alhpa", Run(project1, fails: true, "build", "-t:MemoptTrain"));
    }

    public void Dispose()
    {
        Directory.Delete(folder, recursive: true);
        var cache = Environment.GetEnvironmentVariable("NUGET_PACKAGES") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");
        foreach (var package in new[] { "memopt", "memopt.build" }.Select(name => Path.Combine(cache, name, version)).Where(Directory.Exists))
            Directory.Delete(package, recursive: true);
    }

    private static string Run(string folder, params string[] arguments) => Run(folder, fails: false, arguments);

    private static string Run(string folder, bool fails, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", arguments) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["DOTNET_NOLOGO"] = "1";
        // The SDK that runs the tests hands these on; the user's shell has none of them.
        foreach (var name in start.Environment.Keys.Where(key => key.StartsWith("MSBUILD", StringComparison.OrdinalIgnoreCase) || key.StartsWith("VSTEST", StringComparison.OrdinalIgnoreCase)).ToList())
            start.Environment.Remove(name);
        using var process = Process.Start(start)!;
        var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        Assert.True(process.WaitForExit(300_000), $"dotnet {string.Join(' ', arguments)} did not end");
        process.WaitForExit();
        Assert.True(fails == (process.ExitCode != 0), $"dotnet {string.Join(' ', arguments)} exit {process.ExitCode}\n{output.Result}\n{error.Result}");
        return output.Result;
    }

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder = Path.GetDirectoryName(folder) ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}
