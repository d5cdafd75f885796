using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes.Objectives;

/// <summary>What a training minimizes: from the hidden states of a micro-batch to its loss and the gradient of the
/// hidden states.</summary>
internal interface IObjective
{
    /// <summary>How many terms the loss of a micro-batch sums up: a step's loss is their mean over all its
    /// micro-batches.</summary>
    long Terms(MicroBatch batch);

    /// <summary>The summed loss of a micro-batch, fp64 (), and its backward: from nothing to the gradient of the hidden
    /// states.</summary>
    /// <param name="model">The model: its head, and a reference pass with adapters disabled where one is
    /// needed.</param>
    /// <param name="hidden">(N, C) after the last norm.</param>
    /// <param name="batch">The named inputs on the device.</param>
    /// <param name="scale">The gradient is that of scale · sum.</param>
    /// <param name="context">The forward pass.</param>
    (Tensor Sum, Pullback Backward) Loss(
        Decoder model,
        Tensor hidden,
        DeviceBatch batch,
        double scale,
        ForwardContext context
    );
}
