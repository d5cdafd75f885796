using Memopt.Tracking;

namespace Memopt.Tool.Tests;

/// <summary>Which store and which run a command means when it does not say; and runs that are removed by
/// name.</summary>
public sealed class StoreLookupTests
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private string Below => Directory.CreateDirectory(Path.Combine(folder, "a", "b")).FullName;

    private LiteRunStore Store() => new(Path.Combine(folder, ".memopt", "store"));

    private static void Add(
        LiteRunStore store,
        string id,
        int minute,
        RunStatus? end = RunStatus.Finished,
        ArtifactLink? link = null
    )
    {
        using var run = store.Begin(
            new RunStart
            {
                Id = id,
                Experiment = "e",
                Started = new DateTimeOffset(2026, 1, 1, 0, minute, 0, TimeSpan.Zero),
                Config = """{"adapter":{"rank":3},"train":{"learningRate":0.0003,"weightDecay":0}}""",
                TotalSteps = 1,
            }
        );
        run.Append([new StepRow(1, 2.5, 2e-4, 0.5, 12, 12_345, 92_480_000, 0.34)]);
        if (link is not null)
            run.Link(link);
        if (end is { } status)
            run.End(
                new Memopt.Tracking.Outcome(status)
                {
                    Ended = new DateTimeOffset(2026, 1, 1, 1, minute, 5, TimeSpan.Zero),
                }
            );
    }

    [Fact]
    public void Store_of_a_folder_above_is_found_and_the_newest_run_is_shown()
    {
        using (var store = Store())
        {
            Add(store, "aa1", 1);
            Add(store, "aa2", 2);
            Add(store, "b1", 3);
        }
        Assert.Equal(3, Cli.Run(Below, "runs", "list", "--json").Json.AsArray().Count);
        Assert.Equal("b1", (string?)Cli.Run(Below, "runs", "show", "--json").Json["runId"]);
        Assert.Equal("b1", (string?)Cli.Run(Below, "runs", "show", "latest", "--json").Json["runId"]);
        Assert.Contains("aa1, aa2", Cli.Run(Below, "runs", "show", "aa").Error);
        var shown = Cli.Run(Below, "runs", "show").Output;
        foreach (
            var text in new[]
            {
                "took 1 h 0 min",
                "rank=3",
                "learningRate=3e-4",
                "12,345/s",
                "88.2 MiB",
                "340 ms",
                "--all",
            }
        )
            Assert.Contains(text, shown);
        Assert.DoesNotContain("weightDecay", shown); // it is at its default
        Assert.Contains("weightDecay=0", Cli.Run(Below, "runs", "show", "--all").Output);
        Assert.Contains("The runs do not differ", Cli.Run(Below, "runs", "diff", "b1").Output);
    }

    [Fact]
    public void Store_of_a_world_writable_folder_above_is_not_used()
    {
        if (OperatingSystem.IsWindows())
            return;
        using (var store = Store())
            Add(store, "aa1", 1);
        File.SetUnixFileMode(folder, (UnixFileMode)0b111_111_111);
        var said = Cli.Run(Below, "runs", "list");
        Assert.NotEqual(0, said.Exit);
        Assert.Contains("There is no run store here", said.Error);
        Assert.Equal(0, Cli.Run(folder, "runs", "list").Exit);
    }

    [Fact]
    public void Runs_rm_removes_the_named_runs_and_reports_the_artifacts_left()
    {
        File.WriteAllText(Path.Combine(folder, "content"), "content");
        var link = new LocalArtifacts(Path.Combine(folder, ".memopt", "artifacts")).Put(
            "adapter",
            Path.Combine(folder, "content")
        );
        using var store = Store();
        Add(store, "aa1", 1, link: link);
        Add(store, "aa2", 2, RunStatus.Failed);
        Add(store, "aa3", 3, RunStatus.Failed);
        using var busy = store.Begin(
            new RunStart
            {
                Id = "busy",
                Experiment = "e",
                Started = DateTimeOffset.UnixEpoch,
                Config = "{}",
            }
        );

        Assert.NotEqual(0, Cli.Run(folder, "runs", "rm").Exit);
        Assert.Contains("is running", Cli.Run(folder, "runs", "rm", "busy", "--yes").Error);
        Assert.Contains("is running", Cli.Run(folder, "runs", "rm", "--filter", "experiment = 'e'", "--yes").Error);
        Assert.Contains("--yes", Cli.Run(folder, "runs", "rm", "aa1").Error); // nobody can be asked
        Assert.Equal(4, store.Find(new RunQuery()).Runs.Count);

        var one = Cli.Run(folder, "runs", "rm", "aa1", "--yes", "--json");
        Assert.True(one.Exit == 0, one.Error);
        Assert.Equal("aa1", (string?)one.Json["runs"]!.AsArray().Single());
        Assert.Equal(link.Hash, (string?)one.Json["staying"]!.AsArray().Single()!["hash"]);
        Assert.Equal([link.Hash], new LocalArtifacts(Path.Combine(folder, ".memopt", "artifacts")).List());
        var some = Cli.Run(folder, "runs", "rm", "--filter", "status = 'failed'", "--yes");
        Assert.Contains("Removed 2 runs", some.Error);
        Assert.Equal(["busy"], store.Find(new RunQuery()).Runs.Select(run => run.Start.Id));
    }

    [Fact]
    public void Filter_with_a_misspelt_name_is_reported()
    {
        using (var store = Store())
            Add(store, "aa1", 1);
        var said = Cli.Run(folder, "runs", "list", "--filter", "metrics.los < 1");
        Assert.Equal(0, said.Exit);
        Assert.Contains("No run has metrics.los: did you mean metrics.loss?", said.Error);
    }
}
