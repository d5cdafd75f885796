// A store at size: writes runs as trainings would, then times what people ask of it. peers.py beside it stores the same
// points as MLflow does.
//   dotnet run -c Release bench/tracking/scale.cs write FOLDER RUNS STEPS
//   dotnet run -c Release bench/tracking/scale.cs ask FOLDER
//   dotnet run -c Release bench/tracking/scale.cs log FOLDER STEPS
//   dotnet run -c Release bench/tracking/scale.cs backlog FOLDER RUNS STEPS
//   dotnet run -c Release bench/tracking/scale.cs first FOLDER
//   dotnet run -c Release bench/tracking/scale.cs dump FOLDER RUNS > points.csv
#:project ../../src/Tracking/Tracking.csproj
#:property PublishAot=false
#:property ServerGarbageCollector=false
using System.Diagnostics;
using System.Globalization;
using Memopt.Tracking;

var folder = args[1];
using var store = new LiteRunStore(folder);
switch (args[0])
{
    case "write":
        Write(int.Parse(args[2]), int.Parse(args[3]));
        break;
    case "ask":
        Ask();
        break;
    case "backlog":
        for (var number = 0; number < int.Parse(args[2]); number++)
            One(number, int.Parse(args[3]));
        break;
    case "first":
        First();
        break;
    case "log":
        Log(int.Parse(args[2]));
        break;
    case "dump":
        foreach (var run in store.Find(new RunQuery { Limit = int.Parse(args[2]) }).Runs)
        {
            foreach (var metric in run.Metrics.Keys)
            {
                foreach (var point in store.Points(run.Start.Id, metric))
                    Console.WriteLine(
                        string.Create(
                            CultureInfo.InvariantCulture,
                            $"{run.Start.Id},{metric},{point.Step},{point.Time},{point.Value:R}"
                        )
                    );
            }
        }
        break;
}

void Write(int runs, int steps)
{
    var (writing, taking, watch) = (0.0, 0.0, Stopwatch.StartNew());
    const int together = 100;
    for (var first = 0; first < runs; first += together)
    {
        watch.Restart();
        for (var number = first; number < Math.Min(runs, first + together); number++)
            One(number, steps);
        writing += watch.Elapsed.TotalSeconds;
        watch.Restart();
        store.Find(new RunQuery { Limit = 1 });
        taking += watch.Elapsed.TotalSeconds;
        if (first % 1000 == 0)
            Console.Error.WriteLine($"{first + together} runs, writing {writing:F0} s, taking in {taking:F0} s");
    }
    var points = (double)runs * steps * 10;
    long Size(string pattern) =>
        new DirectoryInfo(folder).EnumerateFiles(pattern, SearchOption.AllDirectories).Sum(file => file.Length);
    Console.WriteLine($"{runs} runs, {points:N0} points: written in {writing:F1} s, taken in in {taking:F1} s");
    Console.WriteLine(
        $"runs.db {Size("runs.db"):N0} bytes, {Size("runs.db") / points:F2} a point; sealed spools "
            + $"{Size("*.gz"):N0} bytes, {Size("*.gz") / points:F2} a point"
    );
}

void One(int number, int steps)
{
    using var run = store.Begin(Start(number, steps));
    foreach (var row in Rows(number, steps))
        run.Append(row);
    run.Append(
        new EvalRow(
            steps,
            new Dictionary<string, double>
            {
                ["loss"] = 0.3 + number % 1000 / 1000.0,
                ["accuracy"] = number % 97 / 97.0,
            }
        )
    );
    run.End(
        new Outcome(number % 20 == 0 ? RunStatus.Failed : RunStatus.Finished)
        {
            Ended = Start(number, steps).Started.AddHours(1),
        }
    );
}

// The first query after many runs: how long it waits for the first answer and for all of them, and how long others wait
// for the store's lock meanwhile.
void First()
{
    var (gate, done, longest) = (Path.Combine(folder, "runs.lock"), false, 0.0);
    var other = new Thread(() =>
    {
        var since = Stopwatch.StartNew();
        while (!done)
        {
            try
            {
                new FileStream(gate, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None).Dispose();
                since.Restart();
            }
            catch (IOException)
            {
                longest = Math.Max(longest, since.Elapsed.TotalSeconds);
            }
            Thread.Sleep(1);
        }
    });
    other.Start();
    var watch = Stopwatch.StartNew();
    Console.WriteLine(
        $"newest {store.Find(new RunQuery { Limit = 1 }).Runs[0].Start.Id} after {watch.Elapsed.TotalSeconds:F2} s"
    );
    var all = store.Find(new RunQuery { Limit = int.MaxValue - 1 }).Runs.Count;
    Console.WriteLine($"{all} runs after {watch.Elapsed.TotalSeconds:F2} s");
    done = true;
    other.Join();
    Console.WriteLine($"another process waited for the lock for {longest:F2} s at most");
}

void Ask()
{
    var newest = store.Find(new RunQuery { Limit = 1 }).Runs[0].Start.Id;
    void Time(string what, Func<object> ask)
    {
        var times = new List<double>();
        object found = "";
        for (var i = 0; i < 11; i++)
        {
            var watch = Stopwatch.StartNew();
            found = ask();
            times.Add(watch.Elapsed.TotalMilliseconds);
        }
        Console.WriteLine(
            $"{what, -60} first {times[0], 7:F1} ms, then median {times.Skip(1).Order().ElementAt(5), 7:F1}, "
                + $"worst {times.Skip(1).Max(), 7:F1}   {found}"
        );
    }
    object Count(string? filter) => store.Find(new RunQuery { Filter = filter }).Runs.Count;
    Time("newest 50", () => Count(null));
    Time("status = 'failed'", () => Count("status = 'failed'"));
    Time(
        "metrics.eval_loss < 0.5 and params.adapter.rank = 16",
        () => Count("metrics.eval_loss < 0.5 and params.adapter.rank = 16")
    );
    Time("metrics.eval_loss < 0.301 (one in 1000)", () => Count("metrics.eval_loss < 0.301"));
    Time("nothing matches", () => Count("metrics.eval_loss < 0"));
    Time("order by metrics.eval_loss, start_time desc", () => Count("order by metrics.eval_loss, start_time desc"));
    Time("min(metrics.loss) < 2 or tags.team like 'n%'", () => Count("min(metrics.loss) < 2 or tags.team like 'n%'"));
    Time("a curve of one run", () => store.Points(newest, "loss").Count);
    Time("all step rows of one run", () => store.Steps(newest).Count);
    Time("one run by the start of its id", () => store.Get(newest[..7])!.Start.Id);
}

void Log(int steps)
{
    // As the trainer does: a row of seven numbers a step.
    using var run = store.Begin(Start(0, steps) with { Id = "log" + Guid.NewGuid().ToString("N")[..8] });
    var times = new double[steps];
    for (var step = 1; step <= steps; step++)
    {
        var watch = Stopwatch.GetTimestamp();
        run.Append([new StepRow(step, 2.5 / step, 1e-3, 0.7, 2048, 14_000.5, 8L << 30, 0.15)]);
        times[step - 1] = Stopwatch.GetElapsedTime(watch).TotalMilliseconds;
    }
    run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
    Array.Sort(times);
    Console.WriteLine(
        $"{steps} steps: mean {times.Average():F4} ms, median {times[steps / 2]:F4}, 99 % "
            + $"{times[steps * 99 / 100]:F4}, 99.99 % {times[(int)(steps * 0.9999)]:F4}, worst {times[^1]:F4}"
    );
}

static RunStart Start(int number, int steps) =>
    new()
    {
        Id = $"r{number:D6}",
        Experiment = $"experiment-{number % 10}",
        Started = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero).AddMinutes(number),
        Config =
            $$"""{"model":{"source":"Qwen/Qwen2.5-7B","revision":"main","dtype":"bfloat16"},"data":{"train":"train.jsonl","eval":"eval.jsonl","maxLength":2048,"packing":true},"adapter":{"kind":"qlora","rank":{{8 << number % 3}},"alpha":32,"dropout":0.05,"targets":"all-linear","useRslora":false},"memory":{"recomputeActivations":true,"budgetGiB":null},"train":{"epochs":3,"batchSize":16,"microBatch":2,"learningRate":{{(1 + number % 5) * 1e-4}},"schedule":"cosine","warmupSteps":100,"clip":1.0,"seed":{{number}}},"checkpoint":{"every":200,"keep":2},"tracking":{"experiment":"experiment-{{number % 10}}"} }""",
        Hashes = new Dictionary<string, string>
        {
            ["model"] = new('a', 64),
            ["data.train"] = new('b', 64),
            ["config"] = new('c', 64),
        },
        Environment = new Dictionary<string, string>
        {
            ["tool"] = "0.1.0",
            ["device"] = "NVIDIA H200",
            ["os"] = "Linux",
        },
        Tags = new Dictionary<string, string> { ["team"] = number % 4 == 0 ? "nlp" : "vision" },
        Ledger =
        [
            new("weights", 4L << 30, "device", "7.6e9 * 0.52 B"),
            new("activations", 2L << 30, "device", "28 layers"),
        ],
        TotalSteps = steps,
    };

static IEnumerable<MetricRow> Rows(int seed, int steps)
{
    // Numbers as trainings give them: a loss and a speed that use every bit, norms that were floats, counts, constants.
    var random = new Random(seed);
    var seen = 0L;
    var time = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero).AddMinutes(seed);
    for (var step = 1; step <= steps; step++)
    {
        var seconds = 0.15 + random.NextDouble() * 0.01;
        var tokens = 1900 + random.Next(148);
        seen += tokens;
        time = time.AddSeconds(seconds);
        yield return new(
            step,
            new Dictionary<string, double>
            {
                ["loss"] = 2.5 / Math.Sqrt(step) + random.NextDouble() * 0.1,
                ["learning_rate"] = 1e-4 * 0.5 * (1 + Math.Cos(Math.PI * step / steps)),
                ["grad_norm"] = (float)(0.5 + random.NextDouble()),
                ["tokens"] = tokens,
                ["tokens_per_second"] = tokens / seconds,
                ["memory_bytes"] = 8L << 30,
                ["seconds"] = seconds,
                ["tokens_seen"] = seen,
                ["loss_scale"] = 65536,
                ["gpu_utilization"] = 90 + random.Next(10),
            },
            time
        );
    }
}
