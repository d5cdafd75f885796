using System.Runtime.ExceptionServices;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>The order in which a stage of a pipeline computes the micro-batches of a step: 1F1B (one forward, one
/// backward; Narayanan et al. 2021, arXiv 2104.04473). Stages exchange hidden states and their gradients. One stage
/// runs a plain loop: forward and backward of each micro-batch. Where memory runs out, a stage computes nothing more
/// and goes on exchanging zeros, for the others wait for it; then it throws.</summary>
/// <param name="pipeline">The stages.</param>
/// <param name="model">This one.</param>
internal sealed class PipelineSchedule(Pipeline pipeline, Decoder model)
{
    /// <summary>Forward or backward of a micro-batch.</summary>
    /// <param name="IsForward">Which of them.</param>
    /// <param name="Number">Of the micro-batch in the step, from 0.</param>
    public readonly record struct Pass(bool IsForward, int Number);

    /// <summary>What a stage computes in a step: min(p − r − 1, m) forwards to warm up, then pairs of a forward and a
    /// backward, then the backwards that are left.</summary>
    /// <param name="stage">The stage, r of p.</param>
    /// <param name="count">Micro-batches, m.</param>
    public static IReadOnlyList<Pass> Order(PipelineStage stage, int count)
    {
        var (warmUp, order) = (stage.WarmUp(count), new List<Pass>(2 * count));
        for (var i = 0; i < count + warmUp; i++)
        {
            if (i < count)
                order.Add(new(true, i));
            if (i >= warmUp)
                order.Add(new(false, i - warmUp));
        }
        return order;
    }

    /// <summary>Computes the micro-batches of a step.</summary>
    /// <param name="batches">The same on all stages.</param>
    /// <param name="compute">Computes a pass. In forward from the hidden states of the stage before, which it frees, to
    /// those for the stage after; in backward from and to their gradients. The first stage gets no hidden states, the
    /// last gives none. What it gives is freed once it is sent.</param>
    /// <param name="abandon">Frees what is saved for backwards that will not be computed.</param>
    public void Run(IReadOnlyList<MicroBatch> batches, Func<Pass, Tensor?, Tensor?> compute, Action abandon)
    {
        if (batches.Count == 0)
            return;
        var (order, warmUp) = (Order(model.Spec.Stage, batches.Count), model.Spec.Stage.WarmUp(batches.Count));
        // Taken before memory can run out: a stage without memory sends the one, and receives into the other.
        using var nothing = Spare(batches)?.zero_();
        using var ignored = Spare(batches);
        ExceptionDispatchInfo? exhausted = null;
        var arrived = Exchanged(null, null, order[0]);
        for (var at = 0; at < order.Count; at++)
        {
            var pass = order[at];
            var result = Guarded(() => compute(pass, arrived), () => Nothing(pass));
            arrived = Exchanged(pass, result, at + 1 < order.Count ? order[at + 1] : null);
        }
        exhausted?.Throw();

        // What a pass needs arrives beside what the pass before it gives, where both are exchanged with one stage.
        // While a stage warms up, the stage after it does not give anything yet.
        Tensor? Exchanged(Pass? done, Tensor? result, Pass? next)
        {
            var received = next is { } needs ? Guarded(() => Received(needs), () => Ignored(needs)) : null;
            var (to, from) = (done?.IsForward, !next?.IsForward); // true is the stage after, false the one before
            var together = to == from && !(done is { IsForward: true } forward && forward.Number < warmUp);
            if (to is { } receiver)
                Exchange(receiver, result, together ? received : null);
            if (from is { } sender && !together)
                Exchange(sender, null, received);
            result?.Dispose();
            return received;
        }

        Tensor? Guarded(Func<Tensor?> action, Func<Tensor?> instead)
        {
            try
            {
                if (exhausted is null)
                    return action();
            }
            catch (Exception e) when (OutOfMemory.Is(e))
            {
                exhausted = ExceptionDispatchInfo.Capture(e);
                abandon();
            }
            return instead();
        }

        Tensor? Nothing(Pass pass)
        {
            arrived?.Dispose();
            return (pass.IsForward ? pipeline.IsLast : pipeline.IsFirst) ? null : Part(nothing, batches[pass.Number]);
        }

        Tensor? Received(Pass pass) => Receives(pass) ? Hidden(batches[pass.Number]) : null;

        Tensor? Ignored(Pass pass) => Receives(pass) ? Part(ignored, batches[pass.Number]) : null;
    }

    /// <summary>The forward of a micro-batch alone.</summary>
    /// <param name="batch">The same on all stages.</param>
    /// <param name="forward">From the hidden states of the stage before, which it frees, to those for the stage after;
    /// the first stage gets none, the last gives none. Null sends zeros.</param>
    public void Forward(MicroBatch batch, Func<Tensor?, Tensor?>? forward)
    {
        ExceptionDispatchInfo? exhausted = null;
        var received = pipeline.IsFirst ? null : Hidden(batch);
        pipeline.ExchangeWithPrevious(null, received);
        Tensor? result = null;
        try
        {
            result = forward?.Invoke(received);
        }
        catch (Exception e) when (OutOfMemory.Is(e))
        {
            exhausted = ExceptionDispatchInfo.Capture(e);
        }
        if (!pipeline.IsLast)
            pipeline.ExchangeWithNext(result ??= Hidden(batch).zero_(), null);
        result?.Dispose();
        received?.Dispose();
        exhausted?.Throw();
    }

    private bool Receives(Pass pass) => !(pass.IsForward ? pipeline.IsFirst : pipeline.IsLast);

    /// <summary>Room for the hidden states of each of some micro-batches; null where there is one stage.</summary>
    private Tensor? Spare(IReadOnlyList<MicroBatch> batches) =>
        pipeline.Stages == 1 ? null : Hidden(batches.MaxBy(Tokens)!);

    private static Tensor? Part(Tensor? spare, MicroBatch batch) => spare?.narrow(0, 0, Tokens(batch));

    private void Exchange(bool withNext, Tensor? sent, Tensor? received)
    {
        if (withNext)
            pipeline.ExchangeWithNext(sent, received);
        else
            pipeline.ExchangeWithPrevious(sent, received);
    }

    /// <summary>Room for the hidden states of a micro-batch, or their gradient, (B · T, C).</summary>
    private Tensor Hidden(MicroBatch batch) => empty([Tokens(batch), model.Spec.HiddenSize], model.Type, model.Device);

    private static long Tokens(MicroBatch batch) => (long)batch.Count * batch.Length;
}
