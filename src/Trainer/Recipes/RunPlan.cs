using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>The memory plans of a run on this machine: all that its settings allow, and the one to begin
/// with.</summary>
/// <param name="Ladder">All, the fastest first.</param>
/// <param name="Start">The one to begin with.</param>
internal sealed record RunPlan(IReadOnlyList<MemoryPlan> Ladder, MemoryPlan Start)
{
    /// <summary>The fact of a run's environment that holds the micro-batch it was planned with.</summary>
    public const string MicroBatchFact = "plan.microBatch";

    /// <summary>Sequences computed at once, in the beginning.</summary>
    public int MicroBatch => Start.Rung.MicroBatch;

    /// <summary>Plans a run for the memory that is free now.</summary>
    /// <exception cref="UserFault">No plan fits.</exception>
    public static RunPlan Make(FineTuneJob job, TrainingInputs inputs, ResumeState resume)
    {
        if (job.Config.Settings.Train.BatchSize < job.World.Mesh.Batches)
            throw new UserFault(
                "There are more ranks than sequences in a step.",
                found: $"{job.World.Mesh.Batches} data parallel ranks, train.batchSize = "
                    + $"{job.Config.Settings.Train.BatchSize}",
                next: "raise train.batchSize, or start fewer ranks"
            );
        if (job.World.Mesh.Pipeline.Stages > 1 && job.Metrics.Count > 0)
            throw new UserFault(
                "Metrics of a program need the whole model on each rank.",
                found: $"{string.Join(", ", job.Metrics.Keys)}, and distributed.pipeline = "
                    + job.World.Mesh.Pipeline.Stages,
                next: "set distributed.pipeline to 1, or leave the metrics out"
            );
        var device = Device(job.Backend, inputs.Type, job.Config.Settings.Memory, job.World);
        var plans = MemoryPlan.Ladder(
            PlannedSettings(job),
            inputs.Spec.Shard(device.TensorRanks),
            device,
            inputs.Longest,
            inputs.LongestEval,
            inputs.Eval?.Rows.Count
        );
        var plan = Choose(plans, resume.MicroBatch ?? PlannedBefore(job.Rerun));
        job.Observer.Ledger(plan.Rows, measured: false);
        if (!plan.Fits)
            throw Refused(job, plan, device);
        job.Observer.Stage(StageNames.Memory, $"{plan.PeakBytes / 1048576.0:N0} MiB; {plan.Rung}");
        return new([.. plans.Where(other => CanFollow(plan.Rung, other.Rung))], plan);
    }

    /// <summary>The fastest plan that fits; one of the micro-batch that a previous start took, if that still
    /// does.</summary>
    private static MemoryPlan Choose(IReadOnlyList<MemoryPlan> plans, int? microBatch) =>
        plans.FirstOrDefault(plan => plan.Fits && (microBatch is null || plan.Rung.MicroBatch == microBatch))
        ?? plans.FirstOrDefault(plan => plan.Fits)
        ?? plans.MinBy(plan => plan.PeakBytes)!;

    /// <summary>Whether a run that was loaded on a rung can step down to another: optimizer and shards stay where they
    /// are.</summary>
    private static bool CanFollow(Rung first, Rung other) =>
        other.Strategy == first.Strategy
        && (first.Strategy != DistributedStrategy.Zero3 || other.StreamLayers == first.StreamLayers);

    private static UserFault Refused(FineTuneJob job, MemoryPlan plan, PlanDevice device)
    {
        var host =
            device.HostBytes is { } bytes && plan.HostBytes > bytes
                ? $"; {plan.HostBytes / 1073741824.0:F2} GiB needed on the host, {bytes / 1073741824.0:F2} GiB free"
                : "";
        return new(
            "This does not fit into memory.",
            found: $"{plan.PeakBytes / 1073741824.0:F2} GiB needed with the least that the settings allow ("
                + $"{plan.Rung}), {MemoryPlan.Budget(job.Config.Settings, device) / 1073741824.0:F2} GiB free{host}",
            next: "use adapter.kind = \"qlora\", a smaller train.microBatch or data.maxLength, or raise "
                + "memory.budgetGiB"
        )
        {
            Failed = true,
        };
    }

    /// <summary>A tensor parallel rank has block scales in fp32: nested blocks do not divide as the weights
    /// do.</summary>
    private static RunConfig PlannedSettings(FineTuneJob job)
    {
        var config = job.Config.Settings;
        return job.World.Mesh.Tensor.Size == 1
            ? config
            : config with
            {
                Quantization = config.Quantization with { DoubleQuant = false },
            };
    }

    private static int? PlannedBefore(Run? first) =>
        first?.Start.Environment.TryGetValue(MicroBatchFact, out var text) == true && int.TryParse(text, out var size)
            ? size
            : null;

    /// <summary>This machine, as a plan needs to know it: of several ranks, the one that has the least.</summary>
    private static PlanDevice Device(Backend backend, ScalarType type, MemoryConfig memory, World world)
    {
        var cuda = backend.Kind == "cuda";
        // The ranks of a host share its memory.
        var host = HostMemory.FreeBytes() / world.LocalSize;
        return new(
            backend.Kind,
            world.Least(cuda ? Cuda.FreeBytes() : host),
            type == float32 ? 4 : 2,
            HostBytes: !cuda ? null
                : memory.HostBudgetGiB is { } gib ? (long)(gib * (1L << 30) / world.LocalSize)
                : world.Least(host)
        )
        {
            Ranks = world.Mesh.Data.Size,
            TensorRanks = world.Mesh.Tensor.Size,
            ContextRanks = world.Mesh.Context.Size,
            Stages = world.Mesh.Pipeline.Stages,
            FusedAttention = cuda && type != float32 && Cuda.Capability() >= 80,
            Multiprocessors = cuda ? Cuda.Multiprocessors : 1,
        };
    }
}
