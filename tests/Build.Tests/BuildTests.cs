using System.Text.Json.Nodes;

namespace Memopt.Build.Tests;

/// <summary>A fine-tune as a project, with the packages alone: what a build checks, trains, skips and
/// refuses.</summary>
public sealed class BuildTests(Packages packages) : IClassFixture<Packages>
{
    private const string Row =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n";

    [Fact]
    public void Project_from_the_template_builds_trains_and_answers()
    {
        var project = packages.NewSmall(packages.Empty("in an empty folder"), "MyTune", steps: 3);
        var built = Packages.Dotnet(project, "build");
        Assert.Contains("0 Warning(s)", built);
        Assert.Matches(@"MyTune -> .*adapter \(loss \d+\.\d{4}, evaluation loss \d+\.\d{4}", built);
        var runs = JsonNode.Parse(Packages.Dotnet(project, "memopt", "runs", "list", "--json"))!.AsArray();
        Assert.Equal(("finished", 3), ((string?)runs.Single()!["status"], (int)runs.Single()!["step"]!));
        var run = Packages.Dotnet(project, "memopt", "runs", "show", (string)runs.Single()!["runId"]!, "--json");
        Assert.Equal(4, (int)JsonNode.Parse(run)!["config"]!["adapter"]!["rank"]!);
        Assert.Contains("env.OMP_NUM_THREADS", run);
        Assert.DoesNotContain("MEMOPT_BUILD", run); // which is another in each build
        // A tool that was restored already is found by a project that keeps its packages elsewhere.
        Assert.DoesNotContain(
            "restoring the tool",
            Packages.Dotnet(
                project,
                "build",
                "--no-restore",
                "-p:NuGetPackageRoot=/elsewhere/",
                "-p:NuGetPackageFolders=/elsewhere/"
            )
        );
        // What the build has trained the tool need not train again.
        Assert.True((bool)JsonNode.Parse(Packages.Dotnet(project, "memopt", "run", "--json"))!["upToDate"]!);
    }

    [Fact]
    public void Build_after_an_edit_trains_again_only_if_the_content_matters()
    {
        var project = packages.Small(packages.Empty("t"), "MyTune");
        var data = Path.Combine(project, "data", "train.jsonl");
        Assert.True(Trains(project));
        Assert.False(Trains(project));
        File.SetLastWriteTimeUtc(Path.Combine(project, "memopt.json"), DateTime.UtcNow);
        File.SetLastWriteTimeUtc(data, DateTime.UtcNow);
        File.WriteAllText(Path.Combine(project, "notes.txt"), "nothing that training reads");
        Assert.False(Trains(project));
        var before = File.ReadAllText(data);
        File.AppendAllText(data, Row);
        Assert.True(Trains(project));
        // A file that comes into a folder of data counts as much as a row.
        Packages.Edit(project, "\"data/train.jsonl\"", "\"data/parts\"");
        Directory.CreateDirectory(Path.Combine(project, "data", "parts"));
        File.WriteAllText(Path.Combine(project, "data", "parts", "a.jsonl"), before);
        Assert.True(Trains(project));
        Assert.False(Trains(project));
        File.WriteAllText(Path.Combine(project, "data", "parts", "b.jsonl"), Row);
        Assert.True(Trains(project));
        // A result that is gone in part comes back, that of a training by hand is trained over, one that is gone is
        // made again.
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
    public void Build_of_a_faulty_config_reports_every_problem_at_its_line()
    {
        var project = packages.Small(packages.Empty("t"), "MyTune");
        Packages.Edit(project, "\"alpha\"", "\"alhpa\"");
        Packages.Edit(project, "\"batchSize\": 2", "\"batchSize\": 0");
        var output = Packages.Fails(project, "build");
        Assert.Matches(@"memopt\.json\(11,\d+\): error MEMOPT0002: adapter\.alhpa is not a setting", output);
        Assert.Matches(@"memopt\.json\(15,\d+\): error MEMOPT0004: train\.batchSize must be between 1 and", output);
        Assert.False(Directory.Exists(Path.Combine(project, ".memopt")));

        Packages.Edit(project, "\"alhpa\"", "\"alpha\"");
        Packages.Edit(project, "\"batchSize\": 0", "\"batchSize\": 2");
        File.AppendAllText(Path.Combine(project, "data", "eval.jsonl"), "{\"messages\": 3}\n");
        var rows = File.ReadLines(Path.Combine(project, "data", "eval.jsonl")).Count();
        Assert.Contains(
            $"eval.jsonl({rows},1): error MEMOPT0007:",
            Packages.Fails(project, "build", "-p:MemoptTrainOnBuild=false")
        );
    }

    [Fact]
    public void Plan_that_does_not_fit_is_a_warning_and_over_the_budget_an_error()
    {
        var project = packages.NewSmall(packages.Empty("t"), "MyTune");
        string[] build = ["build", "--no-restore", "-p:MemoptTrainOnBuild=false"]; // dotnet new has restored it
        string Check(bool fails, params string[] more) =>
            fails ? Packages.Fails(project, [.. build, .. more]) : Packages.Dotnet(project, [.. build, .. more]);
        Assert.Matches(
            @"memopt\.json\(\d+,\d+\): warning MEMOPT0010: .*(would fit|needs)",
            Check(false, "-p:MemoptGpu=0.5GiB")
        );
        // told again although nothing was looked at again
        Assert.Contains("warning MEMOPT0010", Check(false, "-p:MemoptGpu=0.5GiB"));
        Assert.DoesNotContain("MEMOPT0010", Check(false, "-p:MemoptGpu=0.5GiB", "-p:NoWarn=MEMOPT0010"));
        Assert.Contains(
            "error MEMOPT0010",
            Check(true, "-p:MemoptGpu=0.5GiB", "-p:MSBuildWarningsAsErrors=MEMOPT0010")
        );
        Assert.Matches(
            @"memopt\.json\(\d+,\d+\): error MEMOPT0010: .*(would fit|needs)",
            Check(true, "-p:MemoptBudgetGiB=0.01")
        );
        Assert.DoesNotContain("MEMOPT0010", Check(false, "-p:MemoptGpu=RTX 4090"));
        Assert.DoesNotContain("MEMOPT0010", Check(false, "-p:MemoptBudgetGiB=8"));
        // What could not be looked at is not taken for checked.
        Packages.Offline = true;
        Assert.Contains("warning MEMOPT0009", Check(false, "-p:MemoptSet=model.source=nobody/nothing"));
        Packages.Offline = false;
        Assert.False(File.Exists(Path.Combine(project, "obj", "memopt", "memopt.checked")));
        foreach (var none in new[] { "-1", "0", "abc" })
            Assert.Contains(
                $"error MEMOPT0014: --budget must be a number of GiB above 0, found \"{none}\".",
                Check(true, $"-p:MemoptBudgetGiB={none}")
            );
    }

    [Fact]
    public void Gate_with_a_worse_result_fails_the_build()
    {
        var project = packages.NewSmall(packages.Empty("t"), "MyTune", steps: 12, batchSize: 16);
        Packages.Dotnet(project, "build", "-p:MemoptNoRegression=true"); // the first has nothing to be worse than
        Packages.Edit(project, "\"steps\": 12", "\"steps\": 1");
        var worse = Packages.Fails(project, "build", "--no-restore", "-p:MemoptNoRegression=true");
        Assert.Matches(@"error MEMOPT0013: accuracy 0(\.\d+)? is below 0\.\d+ of run \w+", worse);
        // and again, although nothing is trained
        Assert.Contains("MEMOPT0013", Packages.Fails(project, "build", "--no-restore", "-p:MemoptNoRegression=true"));
        Packages.Dotnet(project, "build", "--no-restore", "-p:MemoptNoRegression=true", "-p:MemoptTolerance=1");
        Assert.Contains(
            "error MEMOPT0011: accuracy",
            Packages.Fails(project, "build", "--no-restore", "-p:MemoptMinAccuracy=0.99")
        );
        Assert.Contains(
            "error MEMOPT0012: evaluation loss",
            Packages.Fails(project, "build", "--no-restore", "-p:MemoptMaxEvalLoss=0.001")
        );
        Packages.Dotnet(project, "build", "--no-restore", "-p:MemoptMinAccuracy=0", "-p:MemoptMaxEvalLoss=100");

        // Of several configs all that do not pass are told, and those that pass are not looked at again.
        foreach (var name in new[] { "good", "other" })
            File.Copy(Path.Combine(project, "memopt.json"), Path.Combine(project, $"{name}.json"));
        var file = Path.Combine(project, "MyTune.csproj");
        File.WriteAllText(
            file,
            File.ReadAllText(file)
                .Replace(
                    "</Project>",
                    """
                      <ItemGroup>
                        <MemoptRun Include="good.json" MinAccuracy="0" />
                        <MemoptRun Include="other.json" MinAccuracy="0.98" />
                      </ItemGroup>
                    </Project>
                    """
                )
        );
        var several = Packages.Fails(project, "build", "--no-restore", "-p:MemoptMinAccuracy=0.99");
        Assert.Contains("memopt.json : error MEMOPT0011", several);
        Assert.Contains("other.json : error MEMOPT0011", several);
        Assert.DoesNotContain("good.json : error", several);
        Packages.Fails(project, "build", "--no-restore", "-p:MemoptMinAccuracy=0.99", "-bl:again.binlog");
        Assert.Equal([true, false, true], Packages.Ran(Path.Combine(project, "again.binlog"), "_MemoptGate"));

        // A bound that is none is named, and nothing that the help of a command says is taken for a result.
        var output = Packages.Fails(project, "build", "--no-restore", "-p:MemoptMinAccuracy=80%");
        Assert.Contains("error MEMOPT0014: --min-accuracy must be a number from 0 to 1, found \"80%\".", output);
        Assert.DoesNotContain("MEMOPT0013", output);
        // to the end of a long message
        Assert.Contains("L40S", Packages.Fails(project, "build", "--no-restore", "-p:MemoptGpu=RTX 9999"));
        Assert.Contains(
            "error MEMOPT0015: nosuch cannot be started",
            Packages.Fails(project, "build", "--no-restore", "-p:MemoptToolCommand=nosuch")
        );
        // as if it were not there
        Packages.Dotnet(project, "build", "--no-restore", "-p:MemoptToolCommand= ", "-p:MemoptTrainOnBuild=false");
        Assert.Contains(
            "error MEMOPT0003: MemoptBackend must be cpu, cuda or none, found \"gpu\"",
            Packages.Fails(project, "build", "--no-restore", "-p:MemoptBackend=gpu")
        );
    }

    [Fact]
    public void Build_without_the_tool_reports_the_command_that_installs_it()
    {
        var project = packages.Small(packages.Empty("t"), "MyTune");
        Directory.Delete(Path.Combine(project, ".config"), recursive: true);
        Assert.Contains("error MEMOPT0015: The memopt tool is in no tool manifest", Packages.Fails(project, "build"));
    }

    [Fact]
    public void Tool_manifest_of_the_repository_restores()
    {
        var folder = packages.Empty("root");
        var manifest = File.ReadAllText(Path.Combine(Packages.Repository, "dotnet-tools.json"));
        File.WriteAllText(Path.Combine(folder, "dotnet-tools.json"), manifest.Replace("0.1.0", packages.Version));
        Packages.Dotnet(folder, "tool", "restore");
        Assert.StartsWith("0.1.0", Packages.Dotnet(folder, "memopt", "--version"));
    }

    /// <summary>Builds, and says whether the training ran, by the binary log.</summary>
    private static bool Trains(string project, params string[] more)
    {
        var log = Path.Combine(project, "obj", "build.binlog");
        // What was restored once need not be again, which takes as long as the rest.
        Packages.Dotnet(project, ["build", $"-bl:{log}", .. File.Exists(log) ? new[] { "--no-restore" } : [], .. more]);
        return Packages.Ran(log, "_MemoptTrainChanged").Single();
    }
}
