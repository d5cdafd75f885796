using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using Memopt.Trainer.Recipes.Objectives;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>Forward and backward of a micro-batch on a stage of a pipeline, or on the only one; holds what is saved
/// between them.</summary>
internal sealed class MicroBatchPass : IDisposable
{
    private readonly Decoder model;
    private readonly MicroBatch batch;
    private readonly DeviceBatch inputs;
    private readonly List<IDisposable> held = [];
    private ForwardContext? context;
    private Tensor? hidden;
    private Pullback? backward;

    /// <param name="model">The stage.</param>
    /// <param name="batch">The micro-batch.</param>
    public MicroBatchPass(Decoder model, MicroBatch batch)
    {
        (this.model, this.batch) = (model, batch);
        using var scope = NewDisposeScope();
        inputs = new DeviceBatch(batch, model.Device);
        held.AddRange(scope.TakeAll());
    }

    /// <summary>From the hidden states of the stage before, which the pass frees, to those for the stage after, (B · T,
    /// C). The first stage gets none, the last gives none.</summary>
    /// <param name="received">Null on the first stage.</param>
    /// <param name="seed">Of the micro-batch's dropout.</param>
    /// <param name="deterministic">Whether the same bits are wanted of every run.</param>
    public Tensor? Forward(Tensor? received, long seed, bool deterministic)
    {
        using var scope = NewDisposeScope();
        context = model.NewContext(
            batch.Length,
            inputs.Find(MicroBatch.PositionsInput),
            batch.Documents,
            needsGradient: true,
            seed: seed,
            deterministic: deterministic,
            slice: batch.Slice
        );
        (hidden, backward) = model.Forward(received ?? inputs[MicroBatch.IdsInput], context);
        hidden.DetachFromDisposeScope();
        held.AddRange(scope.TakeAll());
        if (model.Spec.HasHead)
            return null;
        var output = hidden;
        hidden = null;
        return output;
    }

    /// <summary>The summed loss, fp64 (), and the gradient of the hidden states that <see cref="Backward"/> takes. On
    /// the last stage.</summary>
    /// <param name="objective">The loss.</param>
    /// <param name="factor">The gradient is that of factor · sum.</param>
    /// <param name="measure">Called between its forward and backward.</param>
    public (Tensor Sum, Tensor Gradient) Loss(IObjective objective, double factor, Action measure)
    {
        using var scope = NewDisposeScope();
        var (sum, lossBackward) = objective.Loss(model, hidden!, inputs, factor, context!);
        measure();
        hidden!.Dispose();
        return (sum.MoveToOuterDisposeScope(), lossBackward(sum).MoveToOuterDisposeScope());
    }

    /// <summary>From the gradient of what <see cref="Forward"/> gave, which the pass frees, to that of what it
    /// received; accumulates the gradients of the trained weights.</summary>
    public Tensor Backward(Tensor gradient) => backward!(gradient);

    public void Dispose()
    {
        hidden?.Dispose();
        context?.Dispose();
        foreach (var tensor in held)
            tensor.Dispose();
    }
}
