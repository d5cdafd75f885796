using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>Activation checkpointing (gradient checkpointing, recomputation; Chen et al. 2016, arXiv 1604.06174) a
/// layer at a time: forward saves only the layer's input, and backward runs the layer again, without its last product,
/// which backward does not need. Both runs do the same arithmetic with the same dropout seed, so loss and gradients are
/// equal to the bit. The last layer runs once: its backward comes next.
/// </summary>
internal static class Recompute
{
    /// <param name="lastLayer">Index of the layer whose backward follows its forward; null where none does.</param>
    /// <param name="saves">The tensors that are saved beside the inputs, where fused kernels made them.</param>
    /// <param name="savedTensors">Holds the saved tensors; null leaves them on the device.</param>
    public static LayerForward Layers(int? lastLayer, SavedForBackward saves, ISavedTensors? savedTensors = null) =>
        (layer, x, context) =>
            layer.Index == lastLayer || !context.NeedsGradient
                ? layer.forward(x, context)
                : Twice(layer, x, context, saves, savedTensors ?? InPlaceTensors.Instance);

    private static ForwardResult Twice(
        DecoderLayer layer,
        Tensor x,
        ForwardContext context,
        SavedForBackward saves,
        ISavedTensors savedTensors
    )
    {
        using var scope = NewDisposeScope();
        (context.NeedsGradient, context.Saves, context.SavedTensors) = (false, saves, savedTensors);
        var input = context.Save(x, layer.Index);
        var y = layer.forward(x, context).Output.MoveToOuterDisposeScope();
        (context.NeedsGradient, context.Saves) = (true, SavedForBackward.Nothing);
        return new(
            y,
            (gradient, _) =>
            {
                using var scope = NewDisposeScope();
                var backward = layer.Backward(input.Unpack(scope), context);
                context.ReleaseWorkspace();
                return backward(gradient);
            }
        );
    }
}
