using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>
/// Activation recomputation (Chen et al. 2016, arXiv 1604.06174) a layer at a time: only the layer's input is kept, and the way back
/// runs the layer again, but for its last product, which nothing there needs. Both runs do the same arithmetic with the same dropout
/// seed, so loss and gradients are the same to the bit.
/// </summary>
public static class Recompute
{
    /// <param name="model">Whose layers are to be run twice.</param>
    /// <param name="keepAttention">Whether what attention gave is kept too, where fused kernels made it: saves its second run, costs as much again as the inputs.</param>
    public static void Attach(Decoder model, bool keepAttention) => model.RunLayer = (layer, x, pass) => Run(layer, x, pass, keepAttention);

    private static Out Run(DecoderLayer layer, Tensor x, Pass pass, bool keepAttention)
    {
        using var scope = NewDisposeScope();
        var learns = pass.Learns;
        (pass.Learns, pass.Remembers) = (false, learns && keepAttention);
        var y = layer.forward(x, pass).Value.MoveToOuterDisposeScope();
        (pass.Learns, pass.Remembers) = (learns, false);
        return new(y, !learns ? null : (gradient, _) =>
        {
            using var scope = NewDisposeScope();
            return layer.forward(x, pass, Wanted.NoValue).Back!(gradient);
        });
    }
}
