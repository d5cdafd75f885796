using Memopt.Core;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>Runs actions with a fallback for out of memory: drops the action, releases its memory, applies a smaller
/// rung, and runs the action again. The loss curve is that of a run that used the rung from that step on.</summary>
/// <param name="rungs">All, the fastest first.</param>
/// <param name="start">The plan that the run begins with.</param>
/// <param name="report">Given a sentence on each step down.</param>
internal sealed class Ladder(IReadOnlyList<MemoryPlan> rungs, MemoryPlan start, Action<string> report)
{
    // A rung that saves less is not worth a try of its own.
    private const double Least = 0.02;

    /// <summary>The plan in effect.</summary>
    public MemoryPlan Plan { get; private set; } = start;

    /// <summary>Whether some rung streams from a file.</summary>
    public bool Spills => rungs.Any(plan => plan.Spills);

    /// <summary>Loads a model; when memory runs out, loads it from the beginning on the fastest rung of which less
    /// stays on the device.</summary>
    /// <param name="load">Leaves nothing on the device when it throws.</param>
    /// <param name="release">Frees what a failed load left.</param>
    public T Load<T>(Func<MemoryPlan, T> load, Action release)
    {
        while (true)
        {
            if (Try(() => load(Plan), out var loaded) is not { } why)
                return loaded;
            release();
            var smaller =
                rungs.FirstOrDefault(other =>
                    other.HostFits && other.PersistentBytes < Plan.PersistentBytes && other.PeakBytes < Plan.PeakBytes
                )
                ?? throw new UserFault(
                    "Memory ran out while the model was made ready.",
                    found: $"{why}; the plan was {Plan.Rung}, {Plan.PeakBytes / 1048576.0:N0} MiB",
                    next: "free memory, or use adapter.kind = \"qlora\""
                )
                {
                    Failed = true,
                };
            report($"memory ran out while the model was made ready: {Plan.Rung} → {smaller.Rung}");
            Plan = smaller;
        }
    }

    /// <summary>Runs an action of a loaded run; when memory runs out, steps down in place to the fastest rung that fits
    /// into the memory that is free now, and runs the action again.</summary>
    /// <param name="during">What it is, for the record: "step 12".</param>
    /// <param name="target">The loaded run.</param>
    /// <param name="action">Leaves nothing half done when it throws.</param>
    public T Run<T>(string during, ILadderTarget target, Func<T> action)
    {
        while (true)
        {
            if (Try(action, out var result) is not { } why)
                return result;
            target.Release();
            StepDown(during, target, why);
        }
    }

    /// <summary>Runs an action; the message where memory ran out, else null. The exception is gone when this returns:
    /// it holds on to the frames that hold on to the memory.</summary>
    private static string? Try<T>(Func<T> action, out T result)
    {
        try
        {
            result = action();
            return null;
        }
        catch (Exception e) when (OutOfMemory.Is(e))
        {
            result = default!;
            return e.Message;
        }
    }

    /// <summary>The same for an action without a result.</summary>
    public void Run(string during, ILadderTarget target, Action action) =>
        Run(
            during,
            target,
            () =>
            {
                action();
                return true;
            }
        );

    private void StepDown(string during, ILadderTarget target, string why)
    {
        while (true)
        {
            var next = Smaller(target.AvailableBytes(Plan.PersistentBytes)) ?? throw Exhausted(during, why);
            report(
                $"memory ran out in {during}: {Plan.Rung} → {next.Rung} ({Plan.PeakBytes / 1048576.0:N0} → "
                    + $"{next.PeakBytes / 1048576.0:N0} MiB)"
            );
            Plan = next;
            var again = Try(
                () =>
                {
                    target.Apply(next.Rung);
                    return true;
                },
                out _
            );
            if (again is null)
                return;
            why = again;
            target.Release();
        }
    }

    /// <summary>The fastest smaller plan that fits, else the smallest; null when there is none.</summary>
    private MemoryPlan? Smaller(long? available)
    {
        var smaller = rungs
            .Where(plan => plan.HostFits && plan.PeakBytes < Plan.PeakBytes * (1 - Least) && Below(plan.Rung))
            .ToList();
        return smaller.FirstOrDefault(plan => MemoryPlan.FitsInto(plan.PeakBytes, available))
            ?? smaller.MinBy(plan => plan.PeakBytes);
    }

    /// <summary>What has gone to the host is not brought back.</summary>
    private bool Below(Rung rung) =>
        rung.StreamLayers >= Plan.Rung.StreamLayers && (rung.OffloadOptimizer || !Plan.Rung.OffloadOptimizer);

    private static UserFault Exhausted(string during, string why) =>
        new(
            $"Memory ran out in {during}, and nothing is left that could be given up.",
            found: why,
            next: "use adapter.kind = \"qlora\", a smaller data.maxLength or train.microBatch, or leave "
                + "memory.* settings out so that more may be given up; the last checkpoint is whole"
        )
        {
            Failed = true,
        };
}
