namespace Memopt.Tracking.Tests;

public sealed class LiteRunStoreTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private static RunStart Start(string id) =>
        new()
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
    public void Step_of_64_bits_is_kept_exactly()
    {
        using var store = new LiteRunStore(folder);
        long[] steps = [long.MinValue, -1, 0, long.MaxValue];
        using (var run = store.Begin(Start("extremes")))
        {
            foreach (var step in steps)
                run.Append(new MetricRow(step, new Dictionary<string, double> { ["m"] = step }));
        }
        Assert.Equal(steps, store.Points("extremes", "m").Select(point => point.Step));
        Assert.Equal(steps[2..], store.Points("extremes", "m", -1).Select(point => point.Step));
        Assert.Single(store.Find(new RunQuery { Filter = $"metrics.m@{long.MinValue} < 0" }).Runs);
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Run_that_has_ended_accepts_links_and_keeps_its_status()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
        {
            run.Append([Row(1), Row(2)]);
            run.Link(new ArtifactLink("adapter", "ff", 12, "/x"));
            Assert.Throws<TrackingException>(() => store.Amend("r1"));
            run.End(new Outcome(RunStatus.Stopped, "asked") { Ended = DateTimeOffset.UnixEpoch });
        }
        Assert.Throws<TrackingException>(() => store.Amend("r2"));
        using (var more = store.Amend("r1"))
        {
            more.Link(new ArtifactLink("adapter", "ff", 12, "/x", "az://a/b"));
            more.Append(new RunEvent(DateTimeOffset.UnixEpoch, 2, "upload", "sent"));
            more.Tag("seen", "yes");
            Assert.Equal(RunStatus.Stopped, store.Get("r1")!.Status);
        }
        foreach (var from in new[] { folder, Path.Combine(folder, "again") })
        {
            using var other = new LiteRunStore(from);
            if (from != folder)
            {
                store.Export(Path.Combine(folder, "one.zip"));
                other.Import(Path.Combine(folder, "one.zip"));
            }
            var back = other.Get("r1")!;
            Assert.Equal(
                (RunStatus.Stopped, "asked", DateTimeOffset.UnixEpoch, 2),
                (back.Status, back.Reason, back.Ended!.Value, back.Step)
            );
            Assert.Equal(("az://a/b", "yes"), (Assert.Single(back.Artifacts).Place, back.Tags["seen"]));
            Assert.Equal("sent", Assert.Single(other.Events("r1")).Text);
            Assert.Empty(other.Check(repair: false));
        }
        // It goes on as ever.
        using (store.Begin(Start("r1"), 2))
            Assert.Equal(RunStatus.Running, store.Get("r1")!.Status);
    }

    [Fact]
    public void Run_reads_back_as_it_was_written()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
        {
            run.Append([Row(1), Row(2, double.NaN), Row(3, double.PositiveInfinity)]);
            run.Append(new EvalRow(3, new Dictionary<string, double> { ["loss"] = double.NaN, ["accuracy"] = 0.5 }));
            run.Link(new ArtifactLink("adapter", "ff", 12, "/x"));
            run.Append(new RunEvent(DateTimeOffset.UnixEpoch, 2, "oom", "micro-batch 4 -> 2"));
            Assert.Equal(RunStatus.Running, store.Get("r1")!.Status);
            run.End(
                new Outcome(RunStatus.Finished, "because")
                {
                    Ended = DateTimeOffset.UnixEpoch,
                    Ledger = [new("weights", 1, "device", "why", 2)],
                }
            );
        }
        var back = store.Get("r")!;
        Assert.Equal(
            System.Text.Json.JsonSerializer.Serialize(Start("r1")),
            System.Text.Json.JsonSerializer.Serialize(back.Start)
        );
        Assert.Equal(
            (RunStatus.Finished, "because", DateTimeOffset.UnixEpoch),
            (back.Status, back.Reason, back.Ended!.Value)
        );
        Assert.Equal([Row(1), Row(2, double.NaN), Row(3, double.PositiveInfinity)], store.Steps("r1"));
        Assert.Equal(0.5, back.Eval["accuracy"]);
        Assert.Equal(2, back.Ledger[0].Measured);
        Assert.Equal([new RunEvent(DateTimeOffset.UnixEpoch, 2, "oom", "micro-batch 4 -> 2")], store.Events("r1"));
        Assert.Equal(new ArtifactLink("adapter", "ff", 12, "/x"), Assert.Single(back.Artifacts));
    }

    [Fact]
    public void Run_resumed_drops_the_steps_after_its_checkpoint()
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
    public void Store_written_and_queried_by_many_threads_loses_nothing()
    {
        using var store = new LiteRunStore(folder);
        Parallel.For(
            0,
            6,
            writer =>
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
            }
        );
        Assert.Equal(6, store.Find(new RunQuery { Status = RunStatus.Finished }).Runs.Count);
        Assert.All(Enumerable.Range(0, 6), writer => Assert.Equal(200, store.Steps($"w{writer}").Count));
    }

    [Fact]
    public void Store_with_a_torn_line_and_a_broken_database_loses_nothing()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
            run.Append([Row(1), Row(2)]);
        File.AppendAllText(Path.Combine(folder, "spool", "r1.jsonl"), "0000abcd step 0 {\"Step\": 3, \"Lo");
        Assert.Equal(2, store.Steps("r1").Count);
        using (var run = store.Begin(Start("r1"), fromStep: 2))
            run.Append([Row(3)]);
        Assert.Equal([1, 2, 3], store.Steps("r1").Select(row => row.Step));

        File.WriteAllText(
            Path.Combine(folder, "runs.db"),
            "this is no database, and long enough to be taken for one page of it".PadRight(9000, '?')
        );
        Assert.Equal([1, 2, 3], store.Steps("r1").Select(row => row.Step));
        Assert.NotEmpty(Directory.EnumerateFiles(folder, "runs.db.broken-*"));
    }

    [Fact]
    public void Run_id_prefix_that_is_ambiguous_is_refused_with_the_matches()
    {
        using var store = new LiteRunStore(folder);
        store.Begin(Start("aa1")).Dispose();
        store.Begin(Start("aa2")).Dispose();
        Assert.Contains("aa1, aa2", Assert.Throws<TrackingException>(() => store.Get("aa")).Message);
        Assert.Null(store.Get("b"));
    }

    [Fact]
    public void Run_open_in_one_writer_refuses_a_second()
    {
        using var store = new LiteRunStore(folder);
        using var run = store.Begin(Start("r1"));
        Assert.Throws<TrackingException>(() => store.Begin(Start("r1")));
    }

    [Fact]
    public void Names_that_differ_only_in_case_are_distinct()
    {
        using (var store = new LiteRunStore(folder))
        {
            using var run = store.Begin(Start("r1"));
            foreach (var name in new[] { "lr", "LR", "Lr" })
            {
                run.Param(name, "p" + name);
                run.Tag(name, "t" + name);
                run.Append(new MetricRow(1, new Dictionary<string, double> { [name] = name[0] }));
            }
            run.Tag("Lr", null);
        }
        using var again = new LiteRunStore(folder);
        var back = again.Get("r1")!;
        Assert.Equal(
            ["pLR", "pLr", "plr"],
            back.Params.Where(param => param.Value.StartsWith('p'))
                .Select(param => param.Value)
                .Order(StringComparer.Ordinal)
        );
        Assert.Equal(("tlr", "tLR", false), (back.Tags["lr"], back.Tags["LR"], back.Tags.ContainsKey("Lr")));
        Assert.Equal(('l', 'L'), ((char)back.Metrics["lr"].Last, (char)back.Metrics["Lr"].Last));
        Assert.Single(
            again.Find(new RunQuery { Filter = "params.LR = 'pLR' and tags.lr = 'tlr' and metrics.LR = 76" }).Runs
        );
        Assert.Empty(again.Check(repair: false));
        Assert.Empty(Directory.EnumerateFiles(folder, "*.broken-*"));
    }

    [Fact]
    public async Task Backlog_of_spools_is_read_in_full_in_turns_of_no_length()
    {
        using var store = new LiteRunStore(folder) { Turn = -1 };
        for (var i = 0; i < 30; i++)
        {
            using var run = store.Begin(Start($"r{i}"));
            run.Append([Row(1)]);
        }
        Assert.Equal(30, (await Task.Run(() => store.Find(new RunQuery())).WaitAsync(Wait.Patience)).Runs.Count);
        Assert.Empty(Directory.EnumerateFiles(Path.Combine(folder, "spool"), "*.jsonl"));
    }

    [Fact]
    public void Query_without_patience_answers_from_the_database_and_counts_the_waiting_runs()
    {
        using var store = new LiteRunStore(folder) { Turn = -1 };
        Backlog(store, 30);
        File.SetLastWriteTimeUtc(Path.Combine(folder, "spool", "r7.jsonl"), DateTime.UtcNow.AddMinutes(1));
        var first = store.Find(new RunQuery { Patience = TimeSpan.Zero });
        Assert.Equal("r7", Assert.Single(first.Runs).Start.Id); // written last, taken in first
        Assert.Equal(29, first.Waiting);
        Assert.Equal(28, store.Find(new RunQuery { Patience = TimeSpan.Zero }).Waiting);
        var all = store.Find(new RunQuery());
        Assert.Equal((30, 0), (all.Runs.Count, all.Waiting));
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Run_read_by_id_does_not_wait_for_the_other_spools()
    {
        using var store = new LiteRunStore(folder) { Turn = -1 };
        Backlog(store, 30);
        Assert.Equal("r12", store.Get("r12")!.Start.Id);
        Assert.Equal([1], store.Steps("r13").Select(row => row.Step));
        Assert.Equal(28, Directory.EnumerateFiles(Path.Combine(folder, "spool"), "*.jsonl").Count());
        Assert.Contains("the start of 30 runs", Assert.Throws<TrackingException>(() => store.Get("r")).Message);
        Assert.Equal(30, store.Find(new RunQuery()).Runs.Count);
    }

    [Fact]
    public void Run_read_repeatedly_compiles_no_new_code()
    {
        using var store = new LiteRunStore(folder);
        Backlog(store, 60);
        var compiled = 0L;
        for (var i = 0; i < 60; i++)
        {
            if (i == 20)
                compiled = System.Runtime.JitInfo.GetCompiledMethodCount(currentThread: true);
            Assert.Single(store.Points($"r{i}", "loss"));
        }
        // LiteDB would compile the text of each condition, and keep it.
        Assert.InRange(System.Runtime.JitInfo.GetCompiledMethodCount(currentThread: true) - compiled, 0, 39);
    }

    private static void Backlog(LiteRunStore store, int runs)
    {
        for (var i = 0; i < runs; i++)
        {
            using var run = store.Begin(Start($"r{i}"));
            run.Append([Row(1)]);
        }
    }

    [Fact]
    public void Metric_summaries_stay_exact_while_points_arrive_and_after_a_resume()
    {
        using var store = new LiteRunStore(folder);
        var random = new Random(3);
        var points = new List<(long Step, double Value)>();
        using (var run = store.Begin(Start("r1")))
        {
            for (var step = 1; step <= 1500; step++)
            {
                var value = step % 100 == 0 ? double.NaN : random.NextDouble() - 0.5;
                points.Add((step, value));
                run.Append(new MetricRow(step, new Dictionary<string, double> { ["a.b/c d"] = value }));
                if (step % 400 == 0)
                    Agree();
            }
        }
        Agree();
        using (var run = store.Begin(Start("r1"), fromStep: 700))
            run.Append(new MetricRow(701, new Dictionary<string, double> { ["a.b/c d"] = 9 }));
        points = [.. points.Where(point => point.Step <= 700), (701, 9)];
        Agree();

        void Agree()
        {
            Assert.Equal(points, store.Points("r1", "a.b/c d").Select(point => (point.Step, point.Value)));
            var (known, numbers) = (
                store.Get("r1")!.Metrics["a.b/c d"],
                points.Where(point => !double.IsNaN(point.Value)).ToList()
            );
            Assert.Equal((points.Count, points[^1].Value, points[^1].Step), (known.Count, known.Last, known.LastStep));
            Assert.Equal(numbers.MinBy(point => point.Value), (known.MinStep, known.Min));
            Assert.Equal(numbers.MaxBy(point => point.Value), (known.MaxStep, known.Max));
            Assert.Equal(numbers.Average(point => point.Value), known.Mean, 1e-12);
        }
    }

    [Fact]
    public void Run_list_does_not_read_points()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("r1")))
            run.Append([Row(1), Row(2)]);
        store.Find(new RunQuery());
        Assert.Single(
            store
                .Find(
                    new RunQuery
                    {
                        Filter =
                            "metrics.loss > 0 and min(metrics.loss) < 9 and params.x is null order by metrics.loss",
                        Columns = ["metrics.loss", "mean(metrics.loss)"],
                    }
                )
                .Runs
        );
        store.Get("r1");
        Assert.Equal(0, store.PointReads);
        store.Find(new RunQuery { Filter = "metrics.loss@1 > 0" });
        Assert.Equal(1, store.PointReads);
        store.Points("r1", "loss");
        Assert.Equal(2, store.PointReads);
    }

    [Fact]
    public void Secrets_in_a_run_are_not_recorded()
    {
        using var store = new LiteRunStore(folder);
        store
            .Begin(
                Start("r1") with
                {
                    Config =
                        """{"model":{"source":"https://user:hunter2@host/m?sig=abcDEF%3D&x=1"},"data":{"maxTokens":5}}""",
                    Environment = new Dictionary<string, string>
                    {
                        ["env.HF_TOKEN"] = "hunter2",
                        ["env.AZURE_STORAGE_CONNECTION_STRING"] = "hunter2",
                        ["env.MEMOPT_API_KEY"] = "hunter2",
                        ["env.DB_PASSWORD"] = "hunter2",
                        ["env.PROXY"] = "http://me:hunter2@proxy:80",
                        ["env.LINE"] = "AccountKey=hunter2==;Name=x",
                        ["note"] = "hf_abcdefghijklmnopqrstuvwx eyJhbGciOiJI.eyJzdWIiOiIx.abc_def-123",
                        ["tokenizer"] = "kept",
                        ["tokens_per_step"] = "kept",
                        ["env.HF_HOME"] = "kept",
                    },
                    Tags = new Dictionary<string, string> { ["password"] = "hunter2" },
                }
            )
            .Dispose();
        var kept = store.Get("r1")!.Start;
        Assert.Equal("[redacted]", kept.Environment["env.HF_TOKEN"]);
        Assert.Equal("http://me:[redacted]@proxy:80", kept.Environment["env.PROXY"]);
        Assert.Equal("[redacted] [redacted]", kept.Environment["note"]);
        Assert.Equal(3, kept.Environment.Values.Count(value => value == "kept"));
        Assert.Equal("https://user:[redacted]@host/m?sig=[redacted]&x=1", store.Get("r1")!.Params["model.source"]);
        foreach (
            var file in Directory
                .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                .Where(file => !file.EndsWith(".gz", StringComparison.Ordinal))
        )
            Assert.DoesNotContain("hunter2", File.ReadAllText(file));
    }

    [Fact]
    public void Comparison_of_two_runs_lists_differences_by_section()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("a") with { Config = """{"x":1,"y":2}""" }))
            run.Append([Row(1)]);
        using (
            var run = store.Begin(
                Start("b") with
                {
                    Config = """{"x":1,"y":3,"z":true}""",
                    GitCommit = "beef",
                    Hashes = new Dictionary<string, string>(),
                }
            )
        )
            run.Append([Row(1, 2.5)]);
        Assert.Equal(
            [
                new("config", "y", "2", "3"),
                new("config", "z", null, "true"),
                new("hashes", "data.train", "ab", null),
                new("code", "commit", "c0ffee", "beef"),
                new("result", "loss", "1.5", "2.5"),
            ],
            RunDiff.Between(store.Get("a")!, store.Get("b")!)
        );
        Assert.Empty(RunDiff.Between(store.Get("a")!, store.Get("a")!));
    }

    [Fact]
    public void Run_written_on_another_machine_is_running_while_its_lock_file_is_fresh()
    {
        using var store = new LiteRunStore(folder);
        store.Begin(Start("r1")).Dispose();
        var life = Path.Combine(folder, "spool", "r1.lock");
        File.WriteAllText(life, "another-host"); // its lock does not reach here
        Assert.Equal(RunStatus.Running, store.Get("r1")!.Status);
        File.SetLastWriteTimeUtc(life, DateTime.UtcNow.AddMinutes(-2));
        Assert.Equal(RunStatus.Interrupted, store.Get("r1")!.Status);
    }

    [Fact]
    public void Points_packed_and_unpacked_are_equal_to_the_bit()
    {
        var random = new Random(5);
        foreach (var count in new[] { 1, 2, 511, 512 })
        {
            var points = Enumerable
                .Range(0, count)
                .Select(i => new Point(
                    random.NextInt64(-5, 5) * (i % 7 == 0 ? long.MaxValue / 8 : 1),
                    BitConverter.Int64BitsToDouble(random.NextInt64(long.MinValue, long.MaxValue)),
                    random.NextInt64()
                ))
                .ToArray();
            var back = Chunk.Unpack(Chunk.Pack(points));
            Assert.Equal(
                points.Select(point => (point.Step, BitConverter.DoubleToInt64Bits(point.Value), point.Time)),
                back.Select(point => (point.Step, BitConverter.DoubleToInt64Bits(point.Value), point.Time))
            );
        }
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}
