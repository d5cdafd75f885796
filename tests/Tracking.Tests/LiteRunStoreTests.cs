namespace Memopt.Tracking.Tests;

public sealed class LiteRunStoreTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private static RunStart Start(string id) => new()
    {
        Id = id,
        Experiment = "  spaces kept  ",
        Started = new DateTimeOffset(2026, 1, 2, 3, 4, 5, 678, TimeSpan.FromHours(8)),
        Config = "{\"a.b\": \"\"}",
        Hashes = new Dictionary<string, string> { ["data.train"] = "ab" },
        GitCommit = "c0ffee",
        GitDirty = true,
        Environment = new Dictionary<string, string> { ["tool"] = "" },
        Tags = new Dictionary<string, string> { ["team"] = "nlp", ["$odd.key"] = "x" },
        Ledger = [new("weights", long.MaxValue, "device", "why")],
        TotalSteps = 9,
    };

    private static StepRow Row(int step, double loss = 1.5) => new(step, loss, 1e-3, 0.1, 1L << 52, 3.25, 4, 0.5);

    [Fact]
    public void A_run_reads_back_as_it_was_written()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
        {
            run.Append([Row(1), Row(2, double.NaN), Row(3, double.PositiveInfinity)]);
            run.Append(new EvalRow(3, new Dictionary<string, double> { ["loss"] = double.NaN, ["accuracy"] = 0.5 }));
            run.Link(new ArtifactLink("adapter", "ff", 12, "/x"));
            run.Append(new RunEvent(DateTimeOffset.UnixEpoch, 2, "oom", "micro-batch 4 -> 2"));
            Assert.Equal(RunStatus.Running, store.Get("r1")!.Status);
            run.End(new Outcome(RunStatus.Finished, "because") { Ended = DateTimeOffset.UnixEpoch, Ledger = [new("weights", 1, "device", "why", 2)] });
        }
        var back = store.Get("r")!;
        Assert.Equal(System.Text.Json.JsonSerializer.Serialize(Start("r1")), System.Text.Json.JsonSerializer.Serialize(back.Start));
        Assert.Equal((RunStatus.Finished, "because", DateTimeOffset.UnixEpoch), (back.Status, back.Reason, back.Ended!.Value));
        Assert.Equal([Row(1), Row(2, double.NaN), Row(3, double.PositiveInfinity)], store.Steps("r1"));
        Assert.Equal(0.5, back.Eval["accuracy"]);
        Assert.Equal(2, back.Ledger[0].Measured);
        Assert.Equal([new RunEvent(DateTimeOffset.UnixEpoch, 2, "oom", "micro-batch 4 -> 2")], store.Events("r1"));
        Assert.Equal(new ArtifactLink("adapter", "ff", 12, "/x"), Assert.Single(back.Artifacts));
    }

    [Fact]
    public void Going_on_drops_the_steps_that_are_made_again()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
            run.Append([.. Enumerable.Range(1, 700).Select(step => Row(step))]);
        Assert.Equal(RunStatus.Interrupted, store.Get("r1")!.Status);
        using (var run = store.Begin(Start("r1") with { Started = DateTimeOffset.MaxValue }, fromStep: 600))
        {
            run.Append([Row(601, 7)]);
            Assert.Equal(RunStatus.Running, store.Get("r1")!.Status);
        }
        Assert.Equal(Enumerable.Range(1, 601), store.Steps("r1").Select(row => row.Step));
        Assert.Equal(7, store.Steps("r1")[^1].Loss);
        Assert.Equal(Start("r1").Started, store.Get("r1")!.Start.Started);
    }

    [Fact]
    public void Many_write_and_query_at_once()
    {
        using var store = new LiteRunStore(folder);
        Parallel.For(0, 6, writer =>
        {
            using var mine = new LiteRunStore(folder);
            using var run = mine.Begin(Start($"w{writer}"));
            for (var step = 1; step <= 200; step++)
            {
                run.Append([Row(step)]);
                if (step % 50 == 0)
                    Assert.Equal(step, mine.Steps($"w{writer}").Count);
            }
            run.End(new Outcome(RunStatus.Finished));
        });
        Assert.Equal(6, store.Find(new RunQuery { Status = RunStatus.Finished }).Runs.Count);
        Assert.All(Enumerable.Range(0, 6), writer => Assert.Equal(200, store.Steps($"w{writer}").Count));
    }

    [Fact]
    public void A_torn_line_and_a_broken_database_lose_nothing()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
            run.Append([Row(1), Row(2)]);
        File.AppendAllText(Path.Combine(folder, "spool", "r1.jsonl"), "0000abcd step 0 {\"Step\": 3, \"Lo");
        Assert.Equal(2, store.Steps("r1").Count);
        using (var run = store.Begin(Start("r1"), fromStep: 2))
            run.Append([Row(3)]);
        Assert.Equal([1, 2, 3], store.Steps("r1").Select(row => row.Step));

        File.WriteAllText(Path.Combine(folder, "runs.db"), "this is no database, and long enough to be taken for one page of it".PadRight(9000, '?'));
        Assert.Equal([1, 2, 3], store.Steps("r1").Select(row => row.Step));
        Assert.NotEmpty(Directory.EnumerateFiles(folder, "runs.db.broken-*"));
    }

    [Fact]
    public void An_ambiguous_prefix_is_said()
    {
        using var store = new LiteRunStore(folder);
        store.Begin(Start("aa1")).Dispose();
        store.Begin(Start("aa2")).Dispose();
        Assert.Contains("aa1, aa2", Assert.Throws<TrackingException>(() => store.Get("aa")).Message);
        Assert.Null(store.Get("b"));
    }

    [Fact]
    public void One_process_writes_a_run()
    {
        using var store = new LiteRunStore(folder);
        using var run = store.Begin(Start("r1"));
        Assert.Throws<TrackingException>(() => store.Begin(Start("r1")));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}
