using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>The all-reduces of tensor parallel ranks in a pass. A rank that gives the pass up goes on with zeros in the
/// place of what it does not compute.</summary>
/// <param name="model">The model.</param>
/// <param name="tensor">The ranks.</param>
/// <param name="rung">Which layers are run again in backward, and which sums they keep.</param>
internal sealed class TensorCollectives(Decoder model, TensorParallel tensor, Rung rung) : IPassCollectives
{
    private IEnumerable<Sum> pass = [];
    private long begun;

    public bool NeedAllRanks => true;

    public void Begin(MicroBatch? batch, bool backward) =>
        (begun, pass) = (tensor.Calls, batch is null ? [] : Sums(batch, backward));

    public void Finish()
    {
        foreach (var (shape, type, op) in pass.Skip((int)(tensor.Calls - begun)))
        {
            using var nothing = zeros(shape, type, model.Device);
            tensor.AllReduce(nothing, op);
        }
        pass = [];
    }

    /// <summary>The sums in the order of the pass: embeddings; attention and MLP of each layer; the head's chunks; then
    /// the layers from the last to the first.</summary>
    private IEnumerable<Sum> Sums(MicroBatch batch, bool backward)
    {
        var layers = model.layers.Length;
        var activation = new Sum([(long)batch.Count * batch.Length, model.Spec.HiddenSize], model.Type);
        for (var i = 0; i < 1 + 2 * layers; i++)
            yield return activation;
        foreach (var sum in OfHead(batch.LossPositions.Length, backward))
            yield return sum;
        for (var layer = layers - 1; backward && layer >= 0; layer--)
        {
            // The output of attention, which the second forward computes where it was not kept.
            if (rung.Recompute && layer < layers - 1 && !rung.Keeps.HasFlag(Config.SavedForBackward.Residual))
                yield return activation;
            yield return activation; // gradient of the MLP's input
            yield return activation; // of attention's input
        }
    }

    private IEnumerable<Sum> OfHead(long rows, bool backward)
    {
        var chunk = ChunkedCrossEntropy.ChunkRows(model.lm_head, tensor, model.Type);
        for (long from = 0; from < rows; from += chunk)
        {
            var count = Math.Min(chunk, rows - from);
            yield return new([count], float32, ReduceOp.Max); // largest logits
            yield return new([2, count], float32); // sums of exp, and the targets' logits
            yield return new([count], int32, ReduceOp.Max); // hits
            if (backward)
                yield return new([count, model.Spec.HiddenSize], model.Type);
        }
    }

    private readonly record struct Sum(long[] Shape, ScalarType Type, ReduceOp Op = ReduceOp.Sum);
}
