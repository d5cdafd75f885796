using System.Diagnostics;
using System.IO.Compression;
using System.Text.Json.Nodes;

namespace Memopt.Build.Tests;

/// <summary>A fine-tune as a project, with the packages alone: what a build checks, trains, skips and refuses.</summary>
[Collection(Packages.Collection)]
public sealed class BuildTests(Packages packages)
{
    private const string Row = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n";

    [Fact]
    public void A_project_is_created_built_and_asked_about()
    {
        var project = Small(packages.Empty("in an empty folder"), "MyTune", steps: 3);
        var built = Packages.Dotnet(project, "build");
        Assert.Contains("0 Warning(s)", built);
        Assert.Matches(@"MyTune -> .*adapter \(loss \d+\.\d{4}, evaluation loss \d+\.\d{4}", built);
        var runs = JsonNode.Parse(Packages.Dotnet(project, "memopt", "runs", "list", "--json"))!.AsArray();
        Assert.Equal(("finished", 3), ((string?)runs.Single()!["status"], (int)runs.Single()!["step"]!));
        var run = Packages.Dotnet(project, "memopt", "runs", "show", (string)runs.Single()!["runId"]!, "--json");
        Assert.Equal(4, (int)JsonNode.Parse(run)!["config"]!["adapter"]!["rank"]!);
        Assert.Contains("env.OMP_NUM_THREADS", run);
        Assert.DoesNotContain("MEMOPT_BUILD", run);                          // which is another in each build
        // A tool that was restored already is found by a project that keeps its packages elsewhere.
        Assert.DoesNotContain("restoring the tool", Packages.Dotnet(project, "build", "--no-restore", "-p:NuGetPackageRoot=/elsewhere/", "-p:NuGetPackageFolders=/elsewhere/"));
        // What the build has trained the tool need not train again.
        Assert.True((bool)JsonNode.Parse(Packages.Dotnet(project, "memopt", "run", "--json"))!["upToDate"]!);
    }

    [Fact]
    public void Only_content_that_matters_trains_again()
    {
        var project = Small(packages.Empty("t"), "MyTune");
        var data = Path.Combine(project, "data", "train.jsonl");
        Assert.True(Trains(project));
        Assert.False(Trains(project));
        File.SetLastWriteTimeUtc(Path.Combine(project, "memopt.json"), DateTime.UtcNow);
        File.SetLastWriteTimeUtc(data, DateTime.UtcNow);
        Assert.False(Trains(project));
        File.WriteAllText(Path.Combine(project, "notes.txt"), "nothing that training reads");
        Assert.False(Trains(project));
        var before = File.ReadAllText(data);
        File.AppendAllText(data, Row);
        Assert.True(Trains(project));
        File.WriteAllText(data, before);
        Assert.True(Trains(project));
        Assert.False(Trains(project));
        // A file that comes into a folder of data counts as much as a row.
        Edit(project, "\"data/train.jsonl\"", "\"data/parts\"");
        Directory.CreateDirectory(Path.Combine(project, "data", "parts"));
        File.WriteAllText(Path.Combine(project, "data", "parts", "a.jsonl"), before);
        Assert.True(Trains(project));
        Assert.False(Trains(project));
        File.WriteAllText(Path.Combine(project, "data", "parts", "b.jsonl"), Row);
        Assert.True(Trains(project));
        // A result that is gone in part comes back, that of a training by hand is trained over, one that is gone is made again.
        var weights = Path.Combine(project, ".memopt", "memopt", "adapter", "adapter_model.safetensors");
        var bytes = File.ReadAllBytes(weights);
        File.Delete(weights);
        Assert.Contains("has trained exactly this already", Packages.Dotnet(project, "build"));
        Assert.Equal(bytes, File.ReadAllBytes(weights));
        Packages.Dotnet(project, "memopt", "run", "--set", "train.learningRate=1e-4");
        Assert.True(Trains(project));
        Assert.Equal(bytes, File.ReadAllBytes(weights));
        Directory.Delete(Path.Combine(project, ".memopt"), recursive: true);
        Assert.True(Trains(project));
        // Settings from the command line count too.
        Assert.True(Trains(project, "-p:MemoptSet=train.learningRate=1e-3"));
        Assert.False(Trains(project, "-p:MemoptSet=train.learningRate=1e-3"));
    }

    [Fact]
    public void Problems_are_errors_at_their_place_all_at_once()
    {
        var project = Small(packages.Empty("t"), "MyTune");
        Edit(project, "\"alpha\"", "\"alhpa\"");
        Edit(project, "\"batchSize\": 16", "\"batchSize\": 0");
        var output = Packages.Fails(project, "build");
        Assert.Matches(@"memopt\.json\(11,\d+\): error MEMOPT0002: adapter\.alhpa is not a setting", output);
        Assert.Matches(@"memopt\.json\(15,\d+\): error MEMOPT0004: train\.batchSize must be between 1 and", output);
        Assert.False(Directory.Exists(Path.Combine(project, ".memopt")));

        Edit(project, "\"alhpa\"", "\"alpha\"");
        Edit(project, "\"batchSize\": 0", "\"batchSize\": 16");
        File.AppendAllText(Path.Combine(project, "data", "eval.jsonl"), "{\"messages\": 3}\n");
        var rows = File.ReadLines(Path.Combine(project, "data", "eval.jsonl")).Count();
        Assert.Contains($"eval.jsonl({rows},1): error MEMOPT0007:", Packages.Fails(project, "build", "-p:MemoptTrainOnBuild=false"));
    }

    [Fact]
    public void What_does_not_fit_is_a_warning_and_over_a_budget_an_error()
    {
        var project = Small(packages.Empty("t"), "MyTune");
        string Check(bool fails, params string[] more) => fails ? Packages.Fails(project, ["build", "-p:MemoptTrainOnBuild=false", .. more]) : Packages.Dotnet(project, ["build", "-p:MemoptTrainOnBuild=false", .. more]);
        Assert.Matches(@"memopt\.json\(\d+,\d+\): warning MEMOPT0010: .*(would fit|needs)", Check(false, "-p:MemoptGpu=0.5GiB"));
        Assert.Contains("warning MEMOPT0010", Check(false, "-p:MemoptGpu=0.5GiB"));          // told again although nothing was looked at again
        Assert.DoesNotContain("MEMOPT0010", Check(false, "-p:MemoptGpu=0.5GiB", "-p:NoWarn=MEMOPT0010"));
        Assert.Contains("error MEMOPT0010", Check(true, "-p:MemoptGpu=0.5GiB", "-p:MSBuildWarningsAsErrors=MEMOPT0010"));
        Assert.Matches(@"memopt\.json\(\d+,\d+\): error MEMOPT0010: .*(would fit|needs)", Check(true, "-p:MemoptBudgetGiB=0.01"));
        Assert.DoesNotContain("MEMOPT0010", Check(false, "-p:MemoptGpu=RTX 4090"));
        Assert.DoesNotContain("MEMOPT0010", Check(false, "-p:MemoptBudgetGiB=8"));
        // What could not be looked at is not taken for checked.
        Environment.SetEnvironmentVariable("HF_HUB_OFFLINE", "1");
        Assert.Contains("warning MEMOPT0009", Check(false, "-p:MemoptSet=model.source=nobody/nothing"));
        Environment.SetEnvironmentVariable("HF_HUB_OFFLINE", null);
        Assert.False(File.Exists(Path.Combine(project, "obj", "memopt", "memopt.checked")));
        foreach (var none in new[] { "-1", "0", "abc" })
            Assert.Contains($"error MEMOPT0014: --budget must be a number of GiB above 0, found \"{none}\".", Check(true, $"-p:MemoptBudgetGiB={none}"));
    }

    [Fact]
    public void A_gate_fails_the_build_when_the_result_is_worse()
    {
        var project = Small(packages.Empty("t"), "MyTune", steps: 12);
        Packages.Dotnet(project, "build", "-p:MemoptNoRegression=true");                     // the first has nothing to be worse than
        Edit(project, "\"steps\": 12", "\"steps\": 1");
        var worse = Packages.Fails(project, "build", "-p:MemoptNoRegression=true");
        Assert.Matches(@"error MEMOPT0013: accuracy 0(\.\d+)? is below 0\.\d+ of run \w+", worse);
        Assert.Contains("MEMOPT0013", Packages.Fails(project, "build", "-p:MemoptNoRegression=true"));   // and again, although nothing is trained
        Packages.Dotnet(project, "build", "-p:MemoptNoRegression=true", "-p:MemoptTolerance=1");
        Assert.Contains("error MEMOPT0011: accuracy", Packages.Fails(project, "build", "-p:MemoptMinAccuracy=0.99"));
        Assert.Contains("error MEMOPT0012: evaluation loss", Packages.Fails(project, "build", "-p:MemoptMaxEvalLoss=0.001"));
        Packages.Dotnet(project, "build", "-p:MemoptMinAccuracy=0", "-p:MemoptMaxEvalLoss=100");

        // Of several configs all that do not pass are told, and those that pass are not looked at again.
        foreach (var name in new[] { "good", "other" })
            File.Copy(Path.Combine(project, "memopt.json"), Path.Combine(project, $"{name}.json"));
        var file = Path.Combine(project, "MyTune.csproj");
        File.WriteAllText(file, File.ReadAllText(file).Replace("</Project>", """
              <ItemGroup>
                <MemoptRun Include="good.json" MinAccuracy="0" />
                <MemoptRun Include="other.json" MinAccuracy="0.98" />
              </ItemGroup>
            </Project>
            """));
        var several = Packages.Fails(project, "build", "-p:MemoptMinAccuracy=0.99");
        Assert.Contains("memopt.json : error MEMOPT0011", several);
        Assert.Contains("other.json : error MEMOPT0011", several);
        Assert.DoesNotContain("good.json : error", several);
        Packages.Fails(project, "build", "-p:MemoptMinAccuracy=0.99", "-bl:again.binlog");
        Assert.Equal([true, false, true], Packages.Ran(Path.Combine(project, "again.binlog"), "_MemoptGate"));

        // A bound that is none is named, and nothing that the help of a command says is taken for a result.
        var output = Packages.Fails(project, "build", "-p:MemoptMinAccuracy=80%");
        Assert.Contains("error MEMOPT0014: --min-accuracy must be a number from 0 to 1, found \"80%\".", output);
        Assert.DoesNotContain("MEMOPT0013", output);
        Assert.Contains("L40S", Packages.Fails(project, "build", "-p:MemoptGpu=RTX 9999"));      // to the end of a long message
        Assert.Contains("error MEMOPT0015: nosuch cannot be started", Packages.Fails(project, "build", "-p:MemoptToolCommand=nosuch"));
        Packages.Dotnet(project, "build", "-p:MemoptToolCommand= ", "-p:MemoptTrainOnBuild=false");                                              // as if it were not there
        Assert.Contains("error MEMOPT0003: MemoptBackend must be cpu, cuda or none, found \"gpu\"", Packages.Fails(project, "build", "-p:MemoptBackend=gpu"));
    }

    [Fact]
    public void A_cancelled_build_leaves_a_checkpoint_and_no_process()
    {
        // In a folder whose name holds all that a build may take for something else.
        var project = Small(packages.Empty("a;b #1 100% ünï 中"), "My Tune", steps: 100_000);
        using (var build = Packages.Start(project, "build"))
        {
            var output = build.StandardOutput.ReadToEndAsync();
            var checkpoints = Path.Combine(project, ".memopt", "memopt", "checkpoints");
            for (var waited = Stopwatch.StartNew(); Tools(project).Count == 0 || !Spools(project); Thread.Sleep(50))
                Assert.True(waited.Elapsed.TotalMinutes < 10 && !build.HasExited, "training did not begin");
            Assert.Equal(0, Signals.Send(build.Id, Signals.Interrupt));
            Assert.True(build.WaitForExit(600_000), "the build goes on");
            Assert.NotEqual(0, build.ExitCode);
            Assert.Empty(Tools(project));
            Assert.True(Directory.EnumerateDirectories(checkpoints, "step-*").Any(), output.Result);
        }
        using var second = Packages.Start(project, "build");
        Told(second, "goes on after step");
        // Another build waits for it, and trains on when it is gone.
        using var third = Packages.StartBehind(project);
        Told(third, "is being trained by another process");
        second.Kill();
        Assert.True(second.WaitForExit(600_000));
        Told(third, "goes on after step");
        // A build that is killed leaves no process either, nor does its node.
        third.Kill();
        Assert.True(third.WaitForExit(600_000));
        for (var waited = Stopwatch.StartNew(); Tools(project).Count > 0; Thread.Sleep(50))
            Assert.True(waited.Elapsed.TotalMinutes < 10, "training goes on without its build");

        static void Told(Process build, string text)
        {
            var told = "";
            while (!told.Contains(text, StringComparison.Ordinal) && build.StandardOutput.ReadLine() is { } line)
                told += line + "\n";
            Assert.Contains(text, told);
        }
    }

    [Theory]
    [InlineData("-m")]
    [InlineData("-graph")]
    [InlineData("-mt")]
    public void A_solution_trains_each_once_and_an_app_gets_the_adapters(string how)
    {
        var folder = packages.Empty("s 1");
        var tune = Small(folder, "Tune");
        var library = Directory.CreateDirectory(Path.Combine(folder, "Library")).FullName;
        foreach (var (from, to) in new[] { ("memopt.json", "memopt.json"), ("data/train.jsonl", "data/train.jsonl"), ("data/eval.jsonl", "data/eval.jsonl"), (".config/dotnet-tools.json", ".config/dotnet-tools.json") })
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(library, to))!);
            File.Copy(Path.Combine(tune, from), Path.Combine(library, to));
        }
        File.WriteAllText(Path.Combine(library, "Library.csproj"), $"""
            <Project Sdk="Microsoft.NET.Sdk">
              <PropertyGroup><TargetFrameworks>net10.0;netstandard2.0</TargetFrameworks><MemoptTrainOnBuild>true</MemoptTrainOnBuild></PropertyGroup>
              <ItemGroup><PackageReference Include="Memopt.Build" Version="{packages.Version}" PrivateAssets="all" /></ItemGroup>
            </Project>
            """);
        File.WriteAllText(Path.Combine(library, "Class.cs"), "public class Class { }");
        var app = Directory.CreateDirectory(Path.Combine(folder, "App")).FullName;
        File.WriteAllText(Path.Combine(app, "App.csproj"), """
            <Project Sdk="Microsoft.NET.Sdk">
              <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework></PropertyGroup>
              <ItemGroup><ProjectReference Include="../Tune/Tune.csproj" /><ProjectReference Include="../Library/Library.csproj" /></ItemGroup>
            </Project>
            """);
        File.WriteAllText(Path.Combine(app, "Program.cs"), "System.Console.WriteLine(new Class());");
        Packages.Dotnet(folder, "new", "sln", "-n", "All");
        Packages.Dotnet(folder, "sln", "add", "Tune", "Library", "App");

        Assert.Contains("0 Warning(s)", Packages.Dotnet(folder, "build", how, "-bl:first.binlog"));
        Assert.Equal([true, true], Packages.Ran(Path.Combine(folder, "first.binlog"), "_MemoptTrainChanged"));
        foreach (var name in new[] { "Tune", "Library" })
            Assert.True(File.Exists(Path.Combine(app, "bin", "Debug", "net10.0", "adapters", name, "adapter_model.safetensors")), name);
        Packages.Dotnet(folder, "build", how, "-bl:second.binlog");
        Assert.Equal([false, false], Packages.Ran(Path.Combine(folder, "second.binlog"), "_MemoptTrainChanged"));
    }

    [Fact]
    public void Several_configs_in_and_around_a_project_keep_apart()
    {
        var folder = packages.Empty("Ann's");
        var project = Small(folder, "Tunes");
        var config = File.ReadAllText(Path.Combine(project, "memopt.json")).Replace("\"data/", $"\"{project}/data/");
        foreach (var path in new[] { "configs/a/memopt.json", "configs/b.json", "configs/.memopt/artifacts/registry/b.json", "../common/c.json" })
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(project, path))!);
            File.WriteAllText(Path.Combine(project, path), path.Contains(".memopt/", StringComparison.Ordinal) ? "{ \"name\": \"b\" }" : config);
        }
        var file = Path.Combine(project, "Tunes.csproj");
        File.WriteAllText(file, File.ReadAllText(file).Replace("</Project>", """
              <PropertyGroup><MemoptSet>$(MemoptSet);train.batchSize=4; tracking.experiment=Ann's "best";</MemoptSet></PropertyGroup>
              <ItemGroup><MemoptRun Include="configs/**/*.json;../common/c.json" /></ItemGroup>
            </Project>
            """));
        Packages.Dotnet(project, "build", "-p:MemoptTrainOnBuild=false");
        Assert.Equal(["_/common/c", "configs/a/memopt", "configs/b", "memopt"], Directory.EnumerateFiles(Path.Combine(project, "obj", "memopt"), "*.checked", SearchOption.AllDirectories)
            .Select(note => Path.ChangeExtension(Path.GetRelativePath(Path.Combine(project, "obj", "memopt"), note), null)).Order(StringComparer.Ordinal));
        Assert.Contains("--set train.batchSize=4 --set \"tracking.experiment=Ann's \\\"best\\\"\"", File.ReadAllText(Path.Combine(project, "obj", "memopt", "configs", "b.checked")));
        var watched = JsonNode.Parse(Packages.Dotnet(project, "msbuild", "-t:_MemoptWatch", "-getItem:Watch", "-getProperty:CustomCollectWatchItems"))!;
        Assert.Contains("_MemoptWatch", (string?)watched["Properties"]!["CustomCollectWatchItems"]);
        Assert.Superset(new HashSet<string> { "memopt.json", "b.json", "c.json", "train.jsonl" }, watched["Items"]!["Watch"]!.AsArray().Select(item => (string?)item!["Filename"] + (string?)item["Extension"]).ToHashSet());
        var adapters = JsonNode.Parse(Packages.Dotnet(project, "msbuild", "-t:MemoptAdapters", "-getItem:MemoptAdapter"))!["Items"]!["MemoptAdapter"]!.AsArray();
        Assert.Equal(["Tunes", "a", "b", "c"], adapters.Select(adapter => (string?)adapter!["AdapterName"]).Order(StringComparer.Ordinal));

        // The problems of all of them at once.
        File.WriteAllText(Path.Combine(project, "configs", "a", "memopt.json"), config.Replace("\"alpha\"", "\"alhpa\""));
        File.WriteAllText(Path.Combine(folder, "common", "c.json"), config.Replace("\"batchSize\": 16", "\"batchSize\": 0"));
        var output = Packages.Fails(project, "build");
        Assert.Contains("adapter.alhpa is not a setting", output);
        Assert.Contains("train.batchSize must be between", output);

        File.Copy(Path.Combine(project, "configs", "b.json"), Path.Combine(project, "configs", "a", "b.json"));
        Assert.Contains("error MEMOPT0006: Two configs leave their adapters under one name", Packages.Fails(project, "build"));
    }

    [Fact]
    public void A_fine_tune_goes_on_from_one_that_it_references()
    {
        // Where versions are kept in one place, too.
        var folder = packages.Empty("chain");
        File.WriteAllText(Path.Combine(folder, "Directory.Packages.props"), "<Project><PropertyGroup><ManagePackageVersionsCentrally>true</ManagePackageVersionsCentrally></PropertyGroup></Project>");
        Small(folder, "First");
        var second = Small(folder, "Second");
        Edit(second, "\"rank\": 4,", "\"rank\": 4, \"from\": \"../First/.memopt/memopt/adapter\",");
        var project = Path.Combine(second, "Second.csproj");
        File.WriteAllText(project, File.ReadAllText(project).Replace("</Project>", "  <ItemGroup><ProjectReference Include=\"../First/First.csproj\" /></ItemGroup>\n</Project>"));
        // Checked before the first is trained, which the training of the second then is not without.
        Packages.Dotnet(second, "build", "-p:MemoptTrainOnBuild=false");
        Packages.Dotnet(second, "tool", "restore");
        using var alone = Packages.Start(second, "memopt", "run");
        Assert.Contains("First/memopt.json, which has not been trained", alone.StandardError.ReadToEnd());
        Packages.Dotnet(second, "build", "-bl:once.binlog");
        Assert.Equal([true, true], Packages.Ran(Path.Combine(second, "once.binlog"), "_MemoptTrainChanged"));
        Assert.Equal(["First", "Second"], Directory.EnumerateDirectories(Path.Combine(second, "bin", "Debug", "netstandard2.0", "adapters")).Select(Path.GetFileName).Order());

        // Frameworks that a repository sets for all its projects are no contradiction.
        File.WriteAllText(Path.Combine(folder, "Directory.Build.props"), "<Project><PropertyGroup><TargetFrameworks>net10.0;netstandard2.0</TargetFrameworks></PropertyGroup></Project>");
        Assert.Equal("", Packages.Dotnet(second, "msbuild", "-getProperty:TargetFramework").Trim());
        foreach (var name in new[] { "First", "Second" })
            Directory.Delete(Path.Combine(folder, name, ".memopt", "memopt"), recursive: true);
        Packages.Dotnet(second, "build", "-bl:several.binlog");
        Assert.Equal([true, true], Packages.Ran(Path.Combine(second, "several.binlog"), "_MemoptTrainChanged"));
    }

    [Fact]
    public void Export_and_clean()
    {
        var project = Small(packages.Empty("t"), "MyTune");
        Packages.Dotnet(project, "build", "-t:MemoptExport", "-p:MemoptMerge=true", "-restore");
        var merged = Path.Combine(project, "bin", "memopt", "MyTune", "model.safetensors");
        Assert.True(File.Exists(merged));
        var time = File.GetLastWriteTimeUtc(merged);
        Packages.Dotnet(project, "build", "-t:MemoptExport", "-p:MemoptMerge=true");
        Assert.Equal(time, File.GetLastWriteTimeUtc(merged));
        // An export that is gone is made again, and without Merge another one.
        Directory.Delete(Path.Combine(project, "bin"), recursive: true);
        Packages.Dotnet(project, "build", "-t:MemoptExport", "-p:MemoptMerge=true");
        Assert.True(File.Exists(merged));
        Packages.Dotnet(project, "build", "-t:MemoptExport");
        Assert.Equal(["adapter_config.json", "adapter_model.safetensors"], Directory.EnumerateFiles(Path.GetDirectoryName(merged)!).Select(Path.GetFileName).Order());
        // As a package it is its adapter, which is copied beside the dll of what refers to it.
        Packages.Dotnet(project, "pack", "-o", "out", "-p:IsPackable=true", "-warnaserror");
        using (var package = ZipFile.OpenRead(Path.Combine(project, "out", "MyTune.1.0.0.nupkg")))
        {
            Assert.Equal(["contentFiles/any/any/adapters/MyTune/adapter_config.json", "contentFiles/any/any/adapters/MyTune/adapter_model.safetensors"],
                package.Entries.Select(entry => entry.FullName).Where(name => name.Contains("adapter", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
            using var nuspec = new StreamReader(package.GetEntry("MyTune.nuspec")!.Open());
            Assert.Contains("copyToOutput=\"true\"", nuspec.ReadToEnd());
        }
        Packages.Dotnet(project, "clean");
        Assert.True(Directory.Exists(Path.Combine(project, ".memopt", "memopt", "adapter")));    // days of a GPU are not cleaned away
        Packages.Dotnet(project, "build", "-t:MemoptClean");
        Assert.False(Directory.Exists(Path.Combine(project, ".memopt", "memopt")));
        Assert.True(Directory.Exists(Path.Combine(project, ".memopt", "store")));
    }

    [Fact]
    public void Without_the_tool_the_build_says_what_to_do()
    {
        var project = Small(packages.Empty("t"), "MyTune");
        Directory.Delete(Path.Combine(project, ".config"), recursive: true);
        Assert.Contains("error MEMOPT0015: The memopt tool is in no tool manifest", Packages.Fails(project, "build"));
    }

    [Fact]
    public void The_root_manifest_restores()
    {
        var folder = packages.Empty("root");
        var manifest = File.ReadAllText(Path.Combine(Packages.Repository, "dotnet-tools.json"));
        File.WriteAllText(Path.Combine(folder, "dotnet-tools.json"), manifest.Replace("0.1.0", packages.Version));
        Packages.Dotnet(folder, "tool", "restore");
        Assert.StartsWith("0.1.0", Packages.Dotnet(folder, "memopt", "--version"));
    }

    private string Small(string folder, string name, int steps = 1)
    {
        var project = packages.New(folder, "memopt-qlora", name, "--rank", "4");
        Edit(project, "\"epochs\": 3", $"\"steps\": {steps}");
        return project;
    }

    private static void Edit(string project, string old, string now)
    {
        var config = Path.Combine(project, "memopt.json");
        var text = File.ReadAllText(config);
        Assert.Contains(old, text);
        File.WriteAllText(config, text.Replace(old, now));
    }

    /// <summary>Builds, and says whether the training ran, by the binary log.</summary>
    private static bool Trains(string project, params string[] more)
    {
        var log = Path.Combine(project, "obj", "build.binlog");
        Packages.Dotnet(project, ["build", $"-bl:{log}", .. more]);
        return Packages.Ran(log, "_MemoptTrainChanged").Single();
    }

    /// <summary>Processes of the tool that work for a project.</summary>
    private static List<int> Tools(string project) => [.. Directory.EnumerateDirectories("/proc").Select(Path.GetFileName).Where(name => int.TryParse(name, out _)).Select(int.Parse!).Where(pid =>
    {
        try
        {
            var line = File.ReadAllText($"/proc/{pid}/cmdline");
            return line.Contains("memopt.dll\0run", StringComparison.Ordinal) && line.Contains(project, StringComparison.Ordinal);
        }
        catch (IOException)
        {
            return false;
        }
    })];

    /// <summary>Whether a step has been recorded.</summary>
    private static bool Spools(string project) => Directory.Exists(Path.Combine(project, ".memopt", "store", "spool"))
        && Directory.EnumerateFiles(Path.Combine(project, ".memopt", "store", "spool"), "*.jsonl").Any(file => Text(file).Contains("\"grad_norm\"", StringComparison.Ordinal));

    private static string Text(string file)
    {
        using var reader = new StreamReader(new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        return reader.ReadToEnd();
    }
}
