using Memopt.Core;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>Runs actions with a fallback for out of memory: drops the action, releases its memory, applies the fastest
/// rung that fits into the memory that is free now, and runs the action again. The loss curve is that of a run that
/// used the rung from that step on.
/// </summary>
/// <param name="rungs">All, the fastest first.</param>
/// <param name="start">The plan that the run begins with.</param>
/// <param name="settings">Applies a rung.</param>
/// <param name="budget">Device bytes that a plan may take now, from the persistent bytes; null when unknown.</param>
/// <param name="release">Frees what an interrupted step left.</param>
/// <param name="told">Given a sentence on each step down.</param>
internal sealed class Ladder(
    IReadOnlyList<MemoryPlan> rungs,
    MemoryPlan start,
    MemorySettings settings,
    Func<long, long?> budget,
    Action release,
    Action<string> told
)
{
    // A rung that saves less is not worth a try of its own.
    private const double Least = 0.02;

    /// <summary>The plan in effect.</summary>
    public MemoryPlan Plan { get; private set; } = start;

    /// <summary>Runs an action; when memory runs out, steps down the ladder and runs it again.</summary>
    /// <param name="during">What it is, for the record: "step 12".</param>
    /// <param name="action">Leaves nothing half done when it throws.</param>
    public T Run<T>(string during, Func<T> action)
    {
        while (true)
        {
            string why;
            try
            {
                return action();
            }
            catch (Exception e) when (OutOfMemory.Is(e))
            {
                why = e.Message;
            }
            // Here, and not in the catch: the exception holds on to the frames that hold on to the memory.
            release();
            StepDown(during, why);
        }
    }

    private void StepDown(string during, string why)
    {
        while (true)
        {
            var available = budget(Plan.PersistentBytes);
            var smaller = rungs
                .Where(plan => plan.HostFits && plan.PeakBytes < Plan.PeakBytes * (1 - Least) && Below(plan.Rung))
                .ToList();
            var next =
                smaller.FirstOrDefault(plan => MemoryPlan.FitsInto(plan.PeakBytes, available))
                ?? smaller.MinBy(plan => plan.PeakBytes);
            if (next is null)
            {
                throw new UserFault(
                    $"Memory ran out in {during}, and nothing is left that could be given up.",
                    found: why,
                    next: "use adapter.kind = \"qlora\", a smaller data.maxLength or train.microBatch, or leave "
                        + "memory.* settings out so that more may be given up; the last checkpoint is whole"
                )
                {
                    Failed = true,
                };
            }
            told(
                $"memory ran out in {during}: {Plan.Rung} → {next.Rung} ({Plan.PeakBytes / 1048576.0:N0} → "
                    + $"{next.PeakBytes / 1048576.0:N0} MiB)"
            );
            Plan = next;
            try
            {
                settings.Apply(next.Rung);
                return;
            }
            catch (Exception e) when (OutOfMemory.Is(e))
            {
                why = e.Message;
            }
            release();
        }
    }

    /// <summary>What has gone to the host is not brought back.</summary>
    private bool Below(Rung rung) =>
        rung.StreamLayers >= Plan.Rung.StreamLayers && (rung.OffloadOptimizer || !Plan.Rung.OffloadOptimizer);
}
