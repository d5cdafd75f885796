using System.Text.Json;
using Memopt.Bench;
using Memopt.Trainer;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using TorchSharp;
using static TorchSharp.torch;

// One case of cases.json on this machine's GPU with random weights of the shape; prints one JSON line. bench/run.py runs all beside the twin.
//   Bench cases.json CASE [--deterministic]
var root = JsonDocument.Parse(File.ReadAllText(args[0])).RootElement;
var job = root.GetProperty("cases").EnumerateArray().Single(c => c.GetProperty("name").GetString() == args[1]).Deserialize<Case>(Case.Json)!;
var deterministic = args.Contains("--deterministic");
var shape = root.GetProperty("shapes").GetProperty(job.Shape).Deserialize<Shape>(Case.Json)!;

var home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
var backend = Backend.Load("cuda", new BackendEnvironment(Environment.GetEnvironmentVariable("MEMOPT_LIBTORCH"), Path.Combine(home, ".nuget", "packages"),
    Directory.GetCurrentDirectory(), Path.Combine(home, ".cache", "memopt")));
var spec = shape.Spec();
var kind = job.Kind switch { "qlora" => AdapterKind.Qlora, "full" => AdapterKind.None, _ => AdapterKind.Lora };
var adapter = new AdapterConfig { Kind = kind, Rank = job.Rank, Alpha = 32, Targets = new Targets(job.Targets) };
var train = new TrainConfig { LearningRate = 2e-4, Schedule = ScheduleKind.Constant, Deterministic = deterministic };
var config = new RunConfig
{
    Adapter = adapter,
    Train = train with { BatchSize = job.Batch, MicroBatch = job.Batch },
    Memory = new MemoryConfig { Strategy = MemoryStrategy.Manual, Recompute = job.Recompute, Keep = Enum.Parse<Kept>(job.Keep, ignoreCase: true) },
};
var stages = new List<long> { Cuda.UsedBytes() };
var plan = MemoryPlan.For(config, spec, new PlanDevice("cuda", null, 2) { FusedAttention = Cuda.Capability() >= 80 }, job.Length);
using var model = new Decoder(spec, new RandomParts(spec, bfloat16, backend.Device, kind == AdapterKind.Qlora), bfloat16, backend.Device);
stages.Add(Cuda.UsedBytes());
if (kind != AdapterKind.None)
    AdapterPass.Attach(model, adapter, seed: 1);
if (job.Recompute)
    Recompute.Attach(model, config.Memory.Keep!.Value);
using var optimizer = new Optimizer(AdapterPass.Trained(model, kind, BiasMode.None), train, backend.Device, bfloat16);
stages.Add(Cuda.UsedBytes());
var stepper = new Stepper(model, optimizer, new Schedule(train, 1000), train, null, new Meter(Cuda.UsedBytes));
var random = new Random(0);
var (times, used, loss) = (new List<double>(), 0L, 0.0);
for (var step = 0; step < job.Steps + 2; step++)
{
    var batch = job.Tokens(random, spec.VocabSize);
    var row = stepper.Run(step, [batch]);
    if (step >= 2)
        times.Add(row.Seconds);
    (used, loss) = (Math.Max(used, Cuda.UsedBytes()), row.Loss);
}
var middle = times.Order().ElementAt(times.Count / 2);
Console.WriteLine(JsonSerializer.Serialize(new Dictionary<string, object>
{
    ["case"] = job.Name,
    ["ms"] = 1000 * middle,
    ["tokens_per_second"] = job.Batch * job.Length / middle,
    ["bytes"] = used,
    ["planned"] = stages[0] + plan.PeakBytes,
    ["stages"] = stages,
    ["rows"] = plan.Rows.Select(row => row.Bytes),
    ["loss"] = loss,
    ["deterministic"] = deterministic,
    ["times"] = times.Select(t => Math.Round(1000 * t, 1)),
    ["version"] = $"libtorch {backend.Version}",
    ["gpu"] = Cuda.DeviceName() ?? "",
}));
