using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>
/// The way down when memory runs out: what was being done is dropped, its memory released, the fastest rung that fits into what is there now is
/// put into effect, and it is done again. So a loss curve is that of a run that stood on the rung from that step on.
/// </summary>
/// <param name="rungs">All, the fastest first.</param>
/// <param name="start">Where the run stands.</param>
/// <param name="arrangement">Puts a rung into effect.</param>
/// <param name="budget">Device bytes that a plan may take now, told what rests there; null when unknown.</param>
/// <param name="release">Lets go of what an interrupted step has left.</param>
/// <param name="told">Given a sentence on each step down.</param>
public sealed class Ladder(IReadOnlyList<MemoryPlan> rungs, MemoryPlan start, MemorySettings arrangement, Func<long, long?> budget, Action release, Action<string> told)
{
    // A rung that saves less is not worth a try of its own.
    private const double Least = 0.02;

    /// <summary>Where the run stands.</summary>
    public MemoryPlan Plan { get; private set; } = start;

    /// <summary>Does something; when memory runs out, goes down and does it again.</summary>
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
            var room = budget(Plan.PersistentBytes);
            var smaller = rungs.Where(plan => plan.HostFits && plan.PeakBytes < Plan.PeakBytes * (1 - Least) && Below(plan.Rung)).ToList();
            var next = smaller.FirstOrDefault(plan => MemoryPlan.FitsInto(plan.PeakBytes, room)) ?? smaller.MinBy(plan => plan.PeakBytes);
            if (next is null)
            {
                throw new UserFault($"Memory ran out in {during}, and nothing is left that could be given up.", found: why,
                    next: "use adapter.kind = \"qlora\", a smaller data.maxLength or train.microBatch, or leave memory.* settings out so that more may be given up; the last checkpoint is whole")
                { Failed = true };
            }
            told($"memory ran out in {during}: {Plan.Rung} → {next.Rung} ({Plan.PeakBytes / 1048576.0:N0} → {next.PeakBytes / 1048576.0:N0} MiB)");
            Plan = next;
            try
            {
                arrangement.Apply(next.Rung);
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
    private bool Below(Rung rung) => rung.StreamLayers >= Plan.Rung.StreamLayers && (rung.OffloadOptimizer || !Plan.Rung.OffloadOptimizer);
}
