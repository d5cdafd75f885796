using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>
/// Activation recomputation (Chen et al. 2016, arXiv 1604.06174) a layer at a time: only the layer's input is kept, and the way back
/// runs the layer again, but for its last product, which nothing there needs. Both runs do the same arithmetic with the same dropout
/// seed, so loss and gradients are the same to the bit. The last layer is run once: its way back comes next.
/// </summary>
public static class Recompute
{
    /// <param name="model">Whose layers are to be run twice.</param>
    /// <param name="saves">What is kept beside the inputs, where fused kernels made it.</param>
    /// <param name="savedTensors">Who holds what is kept; none leaves it where it is.</param>
    public static void Attach(Decoder model, SavedForBackward saves, ISavedTensors? savedTensors = null) => model.RunLayer = (layer, x, context) =>
        layer.Index == model.layers.Length - 1 || !context.NeedsGradient ? layer.forward(x, context) : Run(layer, x, context, saves, savedTensors ?? InPlaceTensors.Instance);

    private static ForwardResult Run(DecoderLayer layer, Tensor x, ForwardContext context, SavedForBackward saves, ISavedTensors savedTensors)
    {
        using var scope = NewDisposeScope();
        (context.NeedsGradient, context.Saves, context.SavedTensors) = (false, saves, savedTensors);
        var input = context.Save(x, layer.Index);
        var y = layer.forward(x, context).Output.MoveToOuterDisposeScope();
        (context.NeedsGradient, context.Saves) = (true, SavedForBackward.Nothing);
        return new(y, (gradient, _) =>
        {
            using var scope = NewDisposeScope();
            var again = layer.forward(input.Unpack(scope), context, LinearMode.SkipOutput);
            context.ReleaseWorkspace();
            return again.Backward!(gradient);
        });
    }
}
