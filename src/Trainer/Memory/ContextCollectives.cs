using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>The collectives of context parallel ranks in a pass: a gather of keys and values in the forward of each
/// layer, a sum of their gradients in its backward. A rank that gives the pass up goes on with zeros. The ranks are
/// data parallel ranks too: where they divide the weights, those of a layer are gathered before its keys; where they
/// divide the gradients, those of a layer are summed before the next layer.</summary>
/// <param name="model">The model.</param>
/// <param name="ranks">The ranks that share the rows.</param>
/// <param name="rung">Which layers are run again in backward.</param>
/// <param name="stream">The stream of the layers' weights; null where every weight is on the device.</param>
/// <param name="sumAbove">Takes part in the sums of the gradients of the layers above one.</param>
internal sealed class ContextCollectives(
    Decoder model,
    ContextParallel ranks,
    Rung rung,
    LayerStream? stream,
    Action<int> sumAbove
) : IPassCollectives
{
    private IEnumerable<Call> pass = [];
    private long begun;

    public bool NeedAllRanks => stream?.NeedAllRanks ?? false;

    public void Begin(MicroBatch? batch, bool backward)
    {
        stream?.Begin(batch, backward);
        (begun, pass) = (ranks.Calls, batch is null ? [] : Calls(batch, backward));
    }

    public void Finish()
    {
        foreach (var (layer, shape, entered) in pass.Skip((int)(ranks.Calls - begun)))
        {
            using var scope = NewDisposeScope();
            if (entered > model.layers.Length)
                sumAbove(layer);
            stream?.FinishTo(entered);
            var nothing = zeros(shape, model.Type, model.Device);
            _ = shape.Length == 4 ? ranks.AllGather(nothing) : ranks.ReduceScatter(nothing);
        }
        stream?.Finish();
        pass = [];
    }

    /// <summary>In the order of the pass: the layers from the first to the last, then back.</summary>
    private IEnumerable<Call> Calls(MicroBatch batch, bool backward)
    {
        var layers = model.layers.Length;
        for (var layer = 0; layer < layers; layer++)
            yield return new(layer, Keys(layer), layer + 1);
        for (var layer = layers - 1; backward && layer >= 0; layer--)
        {
            var entered = 2 * layers - layer;
            if (rung.Recompute && layer < layers - 1)
                yield return new(layer, Keys(layer), entered);
            yield return new(layer, [batch.Slice!.Ranks, .. Keys(layer)], entered);
        }

        long[] Keys(int layer)
        {
            var attention = model.Spec.Blocks[layer].Attention;
            return [2, (long)batch.Count * batch.Length, attention.KvHeads, attention.HeadDim];
        }
    }

    /// <param name="Layer">Index of the layer.</param>
    /// <param name="Shape">Of what the rank gives: keys and values of its own tokens to gather, or gradients of those
    /// of every rank to sum.</param>
    /// <param name="Entered">How often layers have been entered by then in the pass: each in forward, and again in
    /// backward.</param>
    private readonly record struct Call(int Layer, long[] Shape, int Entered);
}
