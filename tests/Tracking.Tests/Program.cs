namespace Memopt.Tracking.Tests;

/// <summary>What <see cref="StormTests"/> starts: <c>write STORE RUN STEPS ACKNOWLEDGED</c> or <c>query STORE
/// STOP</c>; and <see cref="BlobArtifactsTests"/>: <c>push|pull FOLDER CONNECTION HASH BLOCKBYTES</c>; and
/// <see cref="BackgroundUploadTests"/>: <c>upload FOLDER CONNECTION CHECKPOINT</c>, which trains nothing and sends a
/// checkpoint and an adapter; and <see cref="AdapterRegistryTests"/>: <c>register FOLDER CONNECTION NUMBER COUNT</c>.
/// </summary>
internal static class Program
{
    public const int Metrics = 10;

    /// <summary>What a reader says once it is at work.</summary>
    public const string Asking = "asking";

    private static int Main(string[] args)
    {
        if (args[0] is "push" or "pull")
            return Move(args);
        if (args[0] == "upload")
            return Upload(args[1], args[2], args[3]);
        if (args[0] == "register")
            return AdapterRegistryTests.Register(args[1], args[2], int.Parse(args[3]), int.Parse(args[4]));
        using var store = new LiteRunStore(args[1]);
        return args[0] == "write" ? Write(store, args[2], int.Parse(args[3]), args[4]) : Query(store, args[2]);
    }

    private static int Move(string[] args)
    {
        var artifacts = new BlobArtifacts(
            new LocalArtifacts(args[1]),
            Azurite.Place with
            {
                ConnectionString = args[2],
            }
        )
        {
            BlockBytes = int.Parse(args[4]),
        };
        if (args[0] == "push")
            artifacts.Push(args[3]);
        else
            artifacts.Pull(args[3]);
        return 0;
    }

    private static int Upload(string folder, string connection, string checkpoint)
    {
        var (local, runs) = (
            new LocalArtifacts(Path.Combine(folder, "artifacts")),
            new LiteRunStore(Path.Combine(folder, "store"))
        );
        using var uploads = new BackgroundUpload(
            local,
            Azurite.Place with
            {
                ConnectionString = connection,
            },
            runs,
            Console.Error.WriteLine
        );
        using (
            var run = runs.Begin(
                new RunStart
                {
                    Id = "r1",
                    Experiment = "e",
                    Started = DateTimeOffset.UtcNow,
                    Config = "{}",
                }
            )
        )
        {
            using var recording = uploads.Recording("r1", run, () => 1);
            uploads.Send(
                Tracking.Upload.Folder(
                    "r1",
                    "checkpoint-00000001",
                    checkpoint,
                    BackgroundUploadTests.FilesOf(checkpoint)
                )
            );
            var link = local.Put("adapter", Path.Combine(checkpoint, "..", "adapter"));
            run.Link(link);
            uploads.Send(new("r1", link));
            run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
        }
        return uploads.Finish(TimeSpan.FromMinutes(5), (_, _) => { }, CancellationToken.None).Count;
    }

    /// <summary>The value that a metric of a run has at a step.</summary>
    public static double Value(string run, int metric, long step) => (run[^1] + 1) * 1e6 + metric * 1e5 + step * 0.37;

    /// <summary>The last step that a writer knows to be recorded.</summary>
    public static int Acknowledged(string file)
    {
        if (!File.Exists(file))
            return 0;
        var bytes = File.ReadAllBytes(file);
        return bytes.Length < 4 ? 0 : BitConverter.ToInt32(bytes, bytes.Length / 4 * 4 - 4);
    }

    private static int Write(LiteRunStore store, string id, int steps, string file)
    {
        var from = Acknowledged(file);
        using var run = store.Begin(
            new RunStart
            {
                Id = id,
                Experiment = "storm",
                Started = DateTimeOffset.UtcNow,
                Config = "{}",
                TotalSteps = steps,
            },
            from
        );
        // Four bytes at a time at their place: a kill cannot leave half a number before a whole one.
        using var acknowledged = File.OpenHandle(file, FileMode.OpenOrCreate, FileAccess.Write);
        var place = RandomAccess.GetLength(acknowledged) / 4 * 4;
        for (var step = from + 1; step <= steps; step++, place += 4)
        {
            run.Append(
                new MetricRow(
                    step,
                    Enumerable.Range(0, Metrics).ToDictionary(metric => $"m{metric}", metric => Value(id, metric, step))
                )
            );
            RandomAccess.Write(acknowledged, BitConverter.GetBytes(step), place);
            if (steps == int.MaxValue && step % 2 == 0)
                Thread.Sleep(1); // one that goes on until it is killed need not fill the disk
        }
        run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
        return 0;
    }

    private static int Query(LiteRunStore store, string stop)
    {
        var asked = 0;
        for (var random = new Random(asked); !File.Exists(stop); asked++)
        {
            if (asked == 1)
                Console.WriteLine(Asking);
            foreach (var run in store.Find(new RunQuery { Filter = "metrics.m0 > 0 order by metrics.m1" }).Runs.Take(2))
            {
                var curve = store.Points(run.Start.Id, $"m{random.Next(Metrics)}");
                if (curve.Count == 0 || curve[^1].Step < run.Step)
                    throw new InvalidOperationException(
                        $"{run.Start.Id} had step {run.Step} and a curve up to "
                            + $"{(curve.Count == 0 ? 0 : curve[^1].Step)}"
                    );
            }
            Thread.Sleep(20);
        }
        Console.WriteLine(asked);
        return 0;
    }
}
