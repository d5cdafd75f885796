using System.Text.Json;
using Memopt.Bench;
using Memopt.Tracking;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using TorchSharp;
using static TorchSharp.torch;

// One case of cases.json on this machine's GPU with random weights of the shape; prints one JSON line. bench/run.py
// runs all beside the twin.
//   Bench cases.json CASE [--deterministic]
var root = JsonDocument.Parse(File.ReadAllText(args[0])).RootElement;
var job = root.GetProperty("cases")
    .EnumerateArray()
    .Single(c => c.GetProperty("name").GetString() == args[1])
    .Deserialize<Case>(Case.Json)!;
var deterministic = args.Contains("--deterministic");
var shape = Path.Combine(Directory.CreateTempSubdirectory("memopt").FullName, "config.json");
File.WriteAllText(shape, root.GetProperty("shapes").GetProperty(job.Shape).GetRawText());

var backend = Backend.Load("cuda", ProcessEnvironment.BackendEnvironment());
var spec = ModelSpec.Read(shape);
var kind = job.Kind switch
{
    "qlora" => AdapterKind.Qlora,
    "full" => AdapterKind.None,
    _ => AdapterKind.Lora,
};
var adapter = new AdapterConfig
{
    Kind = kind,
    Rank = job.Rank,
    Alpha = 32,
    Targets = new Targets(job.Targets),
};
var train = new TrainConfig
{
    LearningRate = 2e-4,
    Schedule = ScheduleKind.Constant,
    Deterministic = deterministic,
};
var config = new RunConfig
{
    Adapter = adapter,
    Train = train with { BatchSize = job.Batch, MicroBatch = job.Batch },
    Memory = new MemoryConfig
    {
        Strategy = job.Auto ? MemoryStrategy.Auto : MemoryStrategy.Manual,
        Recompute = job.Auto ? null : job.Recompute,
        Keep = job.Auto ? null : Enum.Parse<SavedForBackward>(job.Keep, ignoreCase: true),
        OffloadActivations = job.Auto ? null : job.OffloadActivations,
        OffloadOptimizer = job.Auto ? null : job.OffloadOptimizer,
        StreamLayers = job.Auto ? null : job.StreamLayers,
    },
};

// A small card: all but so much of the memory is taken by something else, the context counted as ours.
if (job.LeftGib is { } left && Cuda.Memory() is { } memory)
    Cuda.Take(memory.Free - (long)(left * (1L << 30)) + Cuda.UsedBytes());
var (ballast, stages) = (
    job.LeftGib is null ? 0 : Cuda.Memory()!.Value.Total - (long)(job.LeftGib * (1L << 30)),
    new List<long> { Cuda.UsedBytes() }
);
long Used() => Cuda.UsedBytes() - ballast;
var plan = MemoryPlan.For(
    config,
    spec,
    new PlanDevice("cuda", job.LeftGib is null ? null : Cuda.FreeBytes(), 2, HostBytes: HostMemory.FreeBytes())
    {
        FusedAttention = Cuda.Capability() >= 80,
        Multiprocessors = Cuda.Multiprocessors,
    },
    job.Length
);
var stream =
    plan.Rung.StreamLayers > 0
        ? new LayerStream(
            spec.Layers,
            backend.Device,
            job.Spill
                ? new FileStore(Path.Combine(Path.GetTempPath(), "memopt-bench.weights"), cuda: true)
                : new HostStore()
        )
        : null;
var streamed = Rung.Streamed(spec.Layers, plan.Rung.StreamLayers).ToHashSet();
using var model = new Decoder(
    spec,
    new RandomParts(
        spec,
        bfloat16,
        backend.Device,
        kind == AdapterKind.Qlora,
        new(),
        layer =>
        {
            if (streamed.Contains(layer.Index))
                stream!.Add(layer);
        }
    ),
    bfloat16,
    backend.Device
);
Cuda.EmptyCache(backend.Device);
stages.Add(Cuda.UsedBytes());
if (kind != AdapterKind.None)
    AdapterPass.Attach(model, adapter, seed: 1);
var meter = new Meter(Cuda.UsedBytes);
using var optimizer = new Optimizer(
    AdapterPass.Trained(model, kind, BiasMode.None),
    train,
    backend.Device,
    bfloat16,
    plan.Rung.OffloadOptimizer
);
using var settings = new MemorySettings(
    model,
    optimizer.OffloadToHost,
    meter,
    stream,
    () => throw new InvalidOperationException()
);
settings.Apply(plan.Rung);
stages.Add(Cuda.UsedBytes());
var trainStep = new TrainStep(model, optimizer, new Schedule(train, 1000), train, null, meter);
if (job.Group == "memory")
    trainStep.Rehearse(Rehearsal.Longest(job.Batch, job.Length, job.Packing));
var random = new Random(0);
var (times, used, loss) = (new List<double>(), 0L, 0.0);
for (var step = 0; step < job.Steps + 2; step++)
{
    var batch = job.Tokens(random, spec.VocabSize);
    var row = trainStep.Run(step, new(0, [batch]));
    if (step >= 2)
        times.Add(row.Seconds);
    (used, loss) = (Math.Max(used, Used()), row.Loss);
}
var middle = times.Order().ElementAt(times.Count / 2);
Console.WriteLine(
    JsonSerializer.Serialize(
        new Dictionary<string, object>
        {
            ["case"] = job.Name,
            ["ms"] = 1000 * middle,
            ["tokens_per_second"] = job.Batch * job.Length / middle,
            ["bytes"] = used,
            ["planned"] = stages[0] - ballast + plan.PeakBytes,
            ["rung"] = plan.Rung.ToString(),
            ["host_bytes"] = HostMemory.PeakResidentBytes(),
            ["host_planned"] = plan.HostBytes,
            ["stages"] = stages,
            ["rows"] = plan.Rows.Where(row => row.Place == "device").Select(row => row.Bytes),
            ["loss"] = loss,
            ["deterministic"] = deterministic,
            ["times"] = times.Select(t => Math.Round(1000 * t, 1)),
            ["version"] = $"libtorch {backend.Version}",
            ["gpu"] = Cuda.DeviceName() ?? "",
        }
    )
);
