using System.Diagnostics;
using System.IO.Compression;
using System.Text.Json.Nodes;

namespace Memopt.Build.Tests;

/// <summary>Fine-tunes among other projects and builds: solutions, references, several configs, cancelled builds,
/// exports.</summary>
public sealed class ProjectsTests(Packages packages) : IClassFixture<Packages>
{
    [Fact]
    public void Build_cancelled_leaves_a_checkpoint_and_no_process()
    {
        // In a folder whose name holds all that a build may take for something else.
        var project = packages.NewSmall(packages.Empty("a;b #1 100% ünï 中"), "My Tune", steps: 100_000);
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
        // A build that is killed leaves no process either, even where its node hangs.
        var node = Watched(Tools(project).Single())[0];
        Assert.NotEqual(third.Id, node);
        Assert.Equal(0, Signals.Send(node, Signals.Stop));
        try
        {
            third.Kill();
            Assert.True(third.WaitForExit(600_000));
            for (var waited = Stopwatch.StartNew(); Tools(project).Count > 0; Thread.Sleep(50))
                Assert.True(waited.Elapsed.TotalMinutes < 10, "training goes on without its build");
        }
        finally
        {
            _ = Signals.Send(node, Signals.Kill);
        }

        static void Told(Process build, string text)
        {
            var told = "";
            while (!told.Contains(text, StringComparison.Ordinal) && build.StandardOutput.ReadLine() is { } line)
                told += line + "\n";
            Assert.Contains(text, told);
        }
    }

    /// <summary>MSBuild's ways to build a solution: on several nodes, by a graph, in several threads. The last two only
    /// with --full: each takes as long as the first.</summary>
    public static TheoryData<string> Builds => Packages.Full ? new("-m", "-graph", "-mt") : new("-m");

    [Theory, MemberData(nameof(Builds))]
    public void Solution_built_trains_each_project_once_and_gives_the_app_the_adapters(string how)
    {
        var folder = packages.Empty("s 1");
        var tune = packages.Small(folder, "Tune");
        var library = Directory.CreateDirectory(Path.Combine(folder, "Library")).FullName;
        foreach (
            var (from, to) in new[]
            {
                ("memopt.json", "memopt.json"),
                ("data/train.jsonl", "data/train.jsonl"),
                ("data/eval.jsonl", "data/eval.jsonl"),
                (".config/dotnet-tools.json", ".config/dotnet-tools.json"),
            }
        )
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(library, to))!);
            File.Copy(Path.Combine(tune, from), Path.Combine(library, to));
        }
        File.WriteAllText(
            Path.Combine(library, "Library.csproj"),
            $"""
            <Project Sdk="Microsoft.NET.Sdk">
              <PropertyGroup><TargetFrameworks>net10.0;netstandard2.0</TargetFrameworks><MemoptTrainOnBuild>true</MemoptTrainOnBuild></PropertyGroup>
              <ItemGroup><PackageReference Include="Memopt.Build" Version="{packages.Version}" PrivateAssets="all" /></ItemGroup>
            </Project>
            """
        );
        File.WriteAllText(Path.Combine(library, "Class.cs"), "public class Class { }");
        var app = Directory.CreateDirectory(Path.Combine(folder, "App")).FullName;
        File.WriteAllText(
            Path.Combine(app, "App.csproj"),
            """
            <Project Sdk="Microsoft.NET.Sdk">
              <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework></PropertyGroup>
              <ItemGroup><ProjectReference Include="../Tune/Tune.csproj" /><ProjectReference Include="../Library/Library.csproj" /></ItemGroup>
            </Project>
            """
        );
        File.WriteAllText(Path.Combine(app, "Program.cs"), "System.Console.WriteLine(new Class());");
        Packages.Dotnet(folder, "new", "sln", "-n", "All");
        Packages.Dotnet(folder, "sln", "add", "Tune", "Library", "App");

        Assert.Contains("0 Warning(s)", Packages.Dotnet(folder, "build", how, "-bl:first.binlog"));
        Assert.Equal([true, true], Packages.Ran(Path.Combine(folder, "first.binlog"), "_MemoptTrainChanged"));
        foreach (var name in new[] { "Tune", "Library" })
            Assert.True(
                File.Exists(
                    Path.Combine(app, "bin", "Debug", "net10.0", "adapters", name, "adapter_model.safetensors")
                ),
                name
            );
        Packages.Dotnet(folder, "build", how, "-bl:second.binlog");
        Assert.Equal([false, false], Packages.Ran(Path.Combine(folder, "second.binlog"), "_MemoptTrainChanged"));
    }

    [Fact]
    public void Configs_in_and_around_one_project_do_not_mix()
    {
        var folder = packages.Empty("Ann's");
        var project = packages.Small(folder, "Tunes");
        var config = File.ReadAllText(Path.Combine(project, "memopt.json")).Replace("\"data/", $"\"{project}/data/");
        foreach (
            var path in new[]
            {
                "configs/a/memopt.json",
                "configs/b.json",
                "configs/.memopt/artifacts/registry/b.json",
                "../common/c.json",
            }
        )
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(project, path))!);
            File.WriteAllText(
                Path.Combine(project, path),
                path.Contains(".memopt/", StringComparison.Ordinal) ? "{ \"name\": \"b\" }" : config
            );
        }
        var file = Path.Combine(project, "Tunes.csproj");
        File.WriteAllText(
            file,
            File.ReadAllText(file)
                .Replace(
                    "</Project>",
                    """
                      <PropertyGroup><MemoptSet>$(MemoptSet);train.batchSize=4; tracking.experiment=Ann's "best";</MemoptSet></PropertyGroup>
                      <ItemGroup><MemoptRun Include="configs/**/*.json;../common/c.json" /></ItemGroup>
                    </Project>
                    """
                )
        );
        Packages.Dotnet(project, "build", "-p:MemoptTrainOnBuild=false");
        Assert.Equal(
            ["_/common/c", "configs/a/memopt", "configs/b", "memopt"],
            Directory
                .EnumerateFiles(Path.Combine(project, "obj", "memopt"), "*.checked", SearchOption.AllDirectories)
                .Select(note =>
                    Path.ChangeExtension(Path.GetRelativePath(Path.Combine(project, "obj", "memopt"), note), null)
                )
                .Order(StringComparer.Ordinal)
        );
        Assert.Contains(
            "--set train.batchSize=4 --set \"tracking.experiment=Ann's \\\"best\\\"\"",
            File.ReadAllText(Path.Combine(project, "obj", "memopt", "configs", "b.checked"))
        );
        var watched = JsonNode.Parse(
            Packages.Dotnet(
                project,
                "msbuild",
                "-t:_MemoptWatch",
                "-getItem:Watch",
                "-getProperty:CustomCollectWatchItems"
            )
        )!;
        Assert.Contains("_MemoptWatch", (string?)watched["Properties"]!["CustomCollectWatchItems"]);
        Assert.Superset(
            new HashSet<string> { "memopt.json", "b.json", "c.json", "train.jsonl" },
            watched["Items"]!["Watch"]!
                .AsArray()
                .Select(item => (string?)item!["Filename"] + (string?)item["Extension"])
                .ToHashSet()
        );
        var adapters = JsonNode.Parse(
            Packages.Dotnet(project, "msbuild", "-t:MemoptAdapters", "-getItem:MemoptAdapter")
        )!["Items"]!["MemoptAdapter"]!.AsArray();
        Assert.Equal(
            ["Tunes", "a", "b", "c"],
            adapters.Select(adapter => (string?)adapter!["AdapterName"]).Order(StringComparer.Ordinal)
        );

        // The problems of all of them at once.
        File.WriteAllText(
            Path.Combine(project, "configs", "a", "memopt.json"),
            config.Replace("\"alpha\"", "\"alhpa\"")
        );
        File.WriteAllText(
            Path.Combine(folder, "common", "c.json"),
            config.Replace("\"batchSize\": 2", "\"batchSize\": 0")
        );
        var output = Packages.Fails(project, "build");
        Assert.Contains("adapter.alhpa is not a setting", output);
        Assert.Contains("train.batchSize must be between", output);

        File.Copy(Path.Combine(project, "configs", "b.json"), Path.Combine(project, "configs", "a", "b.json"));
        Assert.Contains(
            "error MEMOPT0006: Two configs leave their adapters under one name",
            Packages.Fails(project, "build")
        );
    }

    [Fact]
    public void Fine_tune_that_references_another_starts_from_its_adapter()
    {
        // Where versions are kept in one place, too.
        var folder = packages.Empty("chain");
        File.WriteAllText(
            Path.Combine(folder, "Directory.Packages.props"),
            "<Project><PropertyGroup><ManagePackageVersionsCentrally>true</ManagePackageVersionsCentrally></PropertyGroup></Project>"
        );
        packages.Small(folder, "First");
        var second = packages.Small(folder, "Second");
        Packages.Edit(second, "\"rank\": 4,", "\"rank\": 4, \"from\": \"../First/.memopt/memopt/adapter\",");
        var project = Path.Combine(second, "Second.csproj");
        File.WriteAllText(
            project,
            File.ReadAllText(project)
                .Replace(
                    "</Project>",
                    "  <ItemGroup><ProjectReference Include=\"../First/First.csproj\" /></ItemGroup>\n</Project>"
                )
        );
        // Checked before the first is trained, which the training of the second then is not without.
        Packages.Dotnet(second, "build", "-p:MemoptTrainOnBuild=false");
        Packages.Dotnet(second, "tool", "restore");
        using var alone = Packages.Start(second, "memopt", "run");
        Assert.Contains("First/memopt.json, which has not been trained", alone.StandardError.ReadToEnd());
        Packages.Dotnet(second, "build", "-bl:once.binlog");
        Assert.Equal([true, true], Packages.Ran(Path.Combine(second, "once.binlog"), "_MemoptTrainChanged"));
        Assert.Equal(
            ["First", "Second"],
            Directory
                .EnumerateDirectories(Path.Combine(second, "bin", "Debug", "netstandard2.0", "adapters"))
                .Select(Path.GetFileName)
                .Order()
        );

        // Frameworks that a repository sets for all its projects are no contradiction.
        File.WriteAllText(
            Path.Combine(folder, "Directory.Build.props"),
            "<Project><PropertyGroup><TargetFrameworks>net10.0;netstandard2.0</TargetFrameworks></PropertyGroup></Project>"
        );
        Assert.Equal("", Packages.Dotnet(second, "msbuild", "-getProperty:TargetFramework").Trim());
        foreach (var name in new[] { "First", "Second" })
            Directory.Delete(Path.Combine(folder, name, ".memopt", "memopt"), recursive: true);
        Packages.Dotnet(second, "build", "-bl:several.binlog");
        Assert.Equal([true, true], Packages.Ran(Path.Combine(second, "several.binlog"), "_MemoptTrainChanged"));
    }

    [Fact]
    public void Export_writes_the_model_once_and_clean_removes_it()
    {
        var project = packages.Small(packages.Empty("t"), "MyTune");
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
        Assert.Equal(
            ["adapter_config.json", "adapter_model.safetensors"],
            Directory.EnumerateFiles(Path.GetDirectoryName(merged)!).Select(Path.GetFileName).Order()
        );
        // As a package it is its adapter, which is copied beside the dll of what refers to it.
        Packages.Dotnet(project, "pack", "-o", "out", "-p:IsPackable=true", "-warnaserror");
        using (var package = ZipFile.OpenRead(Path.Combine(project, "out", "MyTune.1.0.0.nupkg")))
        {
            Assert.Equal(
                [
                    "contentFiles/any/any/adapters/MyTune/adapter_config.json",
                    "contentFiles/any/any/adapters/MyTune/adapter_model.safetensors",
                ],
                package
                    .Entries.Select(entry => entry.FullName)
                    .Where(name => name.Contains("adapter", StringComparison.Ordinal))
                    .Order(StringComparer.Ordinal)
            );
            using var nuspec = new StreamReader(package.GetEntry("MyTune.nuspec")!.Open());
            Assert.Contains("copyToOutput=\"true\"", nuspec.ReadToEnd());
        }
        Packages.Dotnet(project, "clean");
        // days of a GPU are not cleaned away
        Assert.True(Directory.Exists(Path.Combine(project, ".memopt", "memopt", "adapter")));
        Packages.Dotnet(project, "build", "-t:MemoptClean");
        Assert.False(Directory.Exists(Path.Combine(project, ".memopt", "memopt")));
        Assert.True(Directory.Exists(Path.Combine(project, ".memopt", "store")));
    }

    /// <summary>Processes of the tool that work for a project.</summary>
    private static List<int> Tools(string project) =>
        [
            .. Directory
                .EnumerateDirectories("/proc")
                .Select(Path.GetFileName)
                .Where(name => int.TryParse(name, out _))
                .Select(int.Parse!)
                .Where(pid =>
                {
                    try
                    {
                        var line = File.ReadAllText($"/proc/{pid}/cmdline");
                        return line.Contains("memopt.dll\0run", StringComparison.Ordinal)
                            && line.Contains(project, StringComparison.Ordinal);
                    }
                    catch (IOException)
                    {
                        return false;
                    }
                }),
        ];

    /// <summary>The processes with which a tool ends, the node that started it first.</summary>
    private static int[] Watched(int tool) =>
        [
            .. File.ReadAllText($"/proc/{tool}/environ")
                .Split('\0')
                .Single(variable => variable.StartsWith("MEMOPT_BUILD=", StringComparison.Ordinal))[
                    "MEMOPT_BUILD=".Length..
                ]
                .Split(',')
                .Select(int.Parse),
        ];

    /// <summary>Whether a step has been recorded.</summary>
    private static bool Spools(string project) =>
        Directory.Exists(Path.Combine(project, ".memopt", "store", "spool"))
        && Directory
            .EnumerateFiles(Path.Combine(project, ".memopt", "store", "spool"), "*.jsonl")
            .Any(file => Text(file).Contains("\"grad_norm\"", StringComparison.Ordinal));

    private static string Text(string file)
    {
        using var reader = new StreamReader(
            new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete)
        );
        return reader.ReadToEnd();
    }
}
