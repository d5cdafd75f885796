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
    /// <param name="keeps">What is kept beside the inputs, where fused kernels made it.</param>
    /// <param name="keeper">Who holds what is kept; none leaves it where it is.</param>
    public static void Attach(Decoder model, Kept keeps, IKeeper? keeper = null) => model.RunLayer = (layer, x, pass) =>
        layer.Index == model.layers.Length - 1 || !pass.Learns ? layer.forward(x, pass) : Run(layer, x, pass, keeps, keeper ?? InPlace.Keeper);

    private static Out Run(DecoderLayer layer, Tensor x, Pass pass, Kept keeps, IKeeper keeper)
    {
        using var scope = NewDisposeScope();
        (pass.Learns, pass.Keeps, pass.Keeper) = (false, keeps, keeper);
        var input = pass.Hold(x, layer.Index);
        var y = layer.forward(x, pass).Value.MoveToOuterDisposeScope();
        (pass.Learns, pass.Keeps) = (true, Kept.Nothing);
        return new(y, (gradient, _) =>
        {
            using var scope = NewDisposeScope();
            var again = layer.forward(input.Take(scope), pass, Wanted.NoValue);
            pass.FreeRoom();
            return again.Back!(gradient);
        });
    }
}
