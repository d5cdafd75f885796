using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>The recipe: config → inputs → plan → record → model → adapter → steps → adapter folder. Full, LoRA and
/// QLoRA differ in passes over the model only.</summary>
internal static class FineTuneRecipe
{
    /// <summary>The name of the artifact of changes that are in no commit.</summary>
    public const string ChangesName = "git-diff";

    private const string PlannedMicroBatch = "plan.microBatch";

    public static Result Run(FineTuneJob job, CancellationToken stop)
    {
        using var scope = NewDisposeScope();
        var spec = ModelSpec.Read(job.Model);
        job = job with
        {
            Config = StartingAdapter.Settle(job.Config, spec, text => job.Observer.Stage(StageNames.Adapter, text)),
        };
        var config = job.Config.Settings;
        var inputs = TrainingInputs.Read(job, spec, stop);
        var resume = new ResumeState(job);
        var device = PlanDevice(job.Backend, inputs.Type, config.Memory);
        var plans = MemoryPlan.Ladder(
            config,
            inputs.Spec,
            device,
            inputs.Longest,
            inputs.LongestEval,
            inputs.Eval?.Rows.Count
        );
        var plan = Choose(job, plans, device, resume.MicroBatch ?? PlannedBefore(job.Rerun));
        var batches = new Batches(inputs.Rows.Rows, config.Data, config.Train, plan.Rung.MicroBatch);
        var hashes = inputs.Hashes(job);
        if (resume.Done(hashes, batches.TotalSteps) is { } done)
            return done;
        resume.Check(hashes);
        if (resume.Step > 0)
            job.Observer.Stage(
                StageNames.Resume,
                $"run {resume.RunId} goes on after step {resume.Step} of {batches.TotalSteps}"
            );

        using var record = Begin(job, inputs, resume, plan, hashes, batches.TotalSteps);
        void Happened(string kind, string text) =>
            record.Append(new RunEvent(job.Clock.GetUtcNow(), resume.Step, kind, text));
        job.Observer.RunStarted(resume.RunId);
        foreach (var happened in job.PriorEvents)
            record.Append(happened);
        var changes = job.Changes?.Invoke();
        if (changes is not null)
        {
            record.Link(changes);
            job.Uploads?.Send(new(resume.RunId, changes));
        }
        foreach (var difference in Rerun.Differences(job, hashes, changes?.Hash))
            Happened(StageNames.Differs, difference);
        if (resume.Step > 0)
            Happened(StageNames.Resume, $"goes on after step {resume.Step} of {batches.TotalSteps}");
        try
        {
            var training = new Training(job, inputs, resume, batches, hashes, record);
            while (true)
            {
                var why = "";
                try
                {
                    return training.Run(plans, plan, stop);
                }
                catch (Exception e) when (OutOfMemory.Is(e) && !training.Ready)
                {
                    why = e.Message;
                }
                // The model could not even be loaded: from the beginning, on the fastest rung of which less rests on
                // the device.
                GC.Collect();
                GC.WaitForPendingFinalizers();
                if (job.Backend.Kind == "cuda")
                    Cuda.EmptyCache(job.Backend.Device);
                var smaller =
                    plans.FirstOrDefault(other =>
                        other.HostFits
                        && other.PersistentBytes < plan.PersistentBytes
                        && other.PeakBytes < plan.PeakBytes
                    )
                    ?? throw new UserFault(
                        "Memory ran out while the model was made ready.",
                        found: $"{why}; the plan was {plan.Rung}, {plan.PeakBytes / 1048576.0:N0} MiB",
                        next: "free memory, or use adapter.kind = \"qlora\""
                    )
                    {
                        Failed = true,
                    };
                var text = $"memory ran out while the model was made ready: {plan.Rung} → {smaller.Rung}";
                job.Observer.Stage(StageNames.Memory, text);
                Happened(StageNames.Memory, text);
                plan = smaller;
            }
        }
        catch (Exception e)
        {
            record.End(new Outcome(RunStatus.Failed, e.Message) { Ended = job.Clock.GetUtcNow() });
            throw;
        }
    }

    /// <summary>The fastest plan that fits; one of the micro-batch that an earlier start took, if that still
    /// does.</summary>
    /// <exception cref="UserFault">None fits.</exception>
    private static MemoryPlan Choose(
        FineTuneJob job,
        IReadOnlyList<MemoryPlan> plans,
        PlanDevice device,
        int? microBatch
    )
    {
        var plan =
            plans.FirstOrDefault(plan => plan.Fits && (microBatch is null || plan.Rung.MicroBatch == microBatch))
            ?? plans.FirstOrDefault(plan => plan.Fits)
            ?? plans.MinBy(plan => plan.PeakBytes)!;
        job.Observer.Ledger(plan.Rows, measured: false);
        if (!plan.Fits)
        {
            throw new UserFault(
                "This does not fit into memory.",
                found: $"{plan.PeakBytes / 1073741824.0:F2} GiB needed with the least that the settings allow ("
                    + $"{plan.Rung}), {MemoryPlan.Budget(job.Config.Settings, device) / 1073741824.0:F2} GiB free"
                    + (
                        device.HostBytes is { } host && plan.HostBytes > host
                            ? $"; {plan.HostBytes / 1073741824.0:F2} GiB needed on the host, "
                                + $"{host / 1073741824.0:F2} GiB free"
                            : ""
                    ),
                next: "use adapter.kind = \"qlora\", a smaller train.microBatch or data.maxLength, or raise "
                    + "memory.budgetGiB"
            )
            {
                Failed = true,
            };
        }
        job.Observer.Stage(StageNames.Memory, $"{plan.PeakBytes / 1048576.0:N0} MiB; {plan.Rung}");
        return plan;
    }

    private static int? PlannedBefore(Run? first) =>
        first?.Start.Environment.TryGetValue(PlannedMicroBatch, out var text) == true
        && int.TryParse(text, out var size)
            ? size
            : null;

    private static IRunWriter Begin(
        FineTuneJob job,
        TrainingInputs inputs,
        ResumeState resume,
        MemoryPlan plan,
        IReadOnlyDictionary<string, string> hashes,
        int steps
    )
    {
        var tracking = job.Config.Settings.Tracking;
        return job
            .Store.BeginBestEffort(
                new RunStart
                {
                    Id = resume.RunId,
                    Experiment = tracking.Experiment,
                    Started = job.Clock.GetUtcNow(),
                    Config = job.Config.Json,
                    Overrides = job.Overrides,
                    Hashes = hashes,
                    Environment = new Dictionary<string, string>(
                        job.Environment.Concat(inputs.Rows.Facts("data.train"))
                            .Concat(inputs.Eval?.Facts("data.eval") ?? [])
                    )
                    {
                        ["plan"] = $"{plan.Rung}",
                        [PlannedMicroBatch] = $"{plan.Rung.MicroBatch}",
                    },
                    GitCommit = job.GitCommit,
                    GitDirty = job.GitDirty,
                    Tags = tracking.Tags,
                    Ledger = resume.Ledger ?? plan.Rows,
                    TotalSteps = steps,
                    Parent = job.Parent,
                },
                resume.Step,
                fault => job.Observer.Stage(StageNames.Tracking, fault),
                Path.Combine(job.Output, "unrecorded")
            )
            .WithTensorBoard(
                tracking.Tensorboard is { } board ? job.Config.Full(board) : null,
                resume.RunId,
                resume.Step,
                fault => job.Observer.Stage(StageNames.Tracking, fault),
                job.Clock
            );
    }

    /// <summary>Loads a model with its frozen linears in 4 bits when the adapter is QLoRA's.</summary>
    public static Decoder LoadModel(
        string folder,
        ModelSpec spec,
        RunConfig config,
        ScalarType type,
        Device device,
        Action<int, int>? progress = null,
        Action<DecoderLayer>? built = null
    )
    {
        var total = spec.Tensors.Count;
        var compute = config.Quantization.ComputeType switch
        {
            DType.Float32 => float32,
            DType.Bfloat16 => bfloat16,
            DType.Float16 => float16,
            _ => type,
        };
        using var weights = new WeightStream(
            folder,
            spec,
            type,
            device,
            module => config.Adapter.Kind == AdapterKind.Qlora && module != "lm_head",
            config.Quantization,
            compute,
            progress is null ? null : new SynchronousProgress(done => progress(done, total)),
            built
        );
        return new Decoder(spec, weights, type, device);
    }

    /// <summary>The type of a setting, or what suits the device: bf16 on a GPU that computes in it, fp16 on an older
    /// one, fp32 on a CPU.</summary>
    public static ScalarType ComputeType(DType dtype, Backend backend) =>
        dtype switch
        {
            DType.Float32 => float32,
            DType.Bfloat16 => bfloat16,
            DType.Float16 when backend.Kind == "cuda" => float16,
            DType.Float16 => throw new UserFault(
                "model.dtype float16 needs a GPU.",
                found: $"backend {backend.Kind}",
                next: "use bfloat16 or float32"
            ),
            _ => backend.Kind != "cuda" ? float32
            : Cuda.Capability() >= 80 ? bfloat16
            : float16,
        };

    /// <summary>Tokens that end an answer.</summary>
    public static HashSet<int> EndOfTurn(ModelSpec spec) => [.. spec.EosTokenIds];

    /// <summary>This machine, as a plan needs to know it.</summary>
    private static PlanDevice PlanDevice(Backend backend, ScalarType type, MemoryConfig memory)
    {
        var cuda = backend.Kind == "cuda";
        return new(
            backend.Kind,
            cuda ? Cuda.FreeBytes() : HostMemory.FreeBytes(),
            type == float32 ? 4 : 2,
            HostBytes: !cuda ? null
                : memory.HostBudgetGiB is { } gib ? (long)(gib * (1L << 30))
                : HostMemory.FreeBytes()
        )
        {
            FusedAttention = cuda && type != float32 && Cuda.Capability() >= 80,
            Multiprocessors = cuda ? Cuda.Multiprocessors : 1,
        };
    }
}
