using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>The gradient of the trained weights as a rank holds it, fp32.</summary>
/// <param name="units">The trained weights.</param>
/// <param name="layout">Of the optimizer's arrays.</param>
/// <param name="group">The ranks.</param>
internal abstract class Gradient(IReadOnlyList<TrainedUnit> units, ShardLayout layout, IProcessGroup group)
    : IDisposable
{
    /// <summary>After <see cref="Reduce"/>: the sum over all ranks, of the weights that this rank's optimizer
    /// moves.</summary>
    public abstract Tensor Own { get; }

    /// <summary>Bytes that it holds between steps.</summary>
    public abstract long Bytes { get; }

    protected IReadOnlyList<TrainedUnit> Units => units;

    protected ShardLayout Layout => layout;

    protected IProcessGroup Group => group;

    /// <summary>A layer whose gradient can be accumulated in its backward.</summary>
    public virtual LayerForward Around(LayerForward run) => run;

    /// <summary>Called before the forward of each micro-batch.</summary>
    /// <param name="rehearsal">Whether the gradient is dropped: then no other rank takes part.</param>
    public virtual void BeginMicroBatch(bool rehearsal) { }

    /// <summary>Called after the backward of each micro-batch.</summary>
    public virtual void EndMicroBatch() { }

    /// <summary>Takes part in the sums of micro-batches that other ranks have and this one has not, or has given
    /// up.</summary>
    /// <param name="microBatches">Of the rank that has the most in this step.</param>
    public virtual void CatchUp(int microBatches) { }

    /// <summary>Takes part in the sums of a micro-batch that this rank has given up: those of the layers above
    /// one.</summary>
    /// <param name="layer">Index of the layer.</param>
    public virtual void CatchUpAbove(int layer) { }

    /// <summary>Makes <see cref="Own"/> the sum over all ranks and micro-batches.</summary>
    public abstract void Reduce();

    /// <summary>Makes the gradient NaN, so that a step changes no weight.</summary>
    public abstract void Invalidate();

    /// <summary>Sets it to zero.</summary>
    public abstract void Zero();

    public abstract void Dispose();
}
