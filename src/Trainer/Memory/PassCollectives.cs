using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>The collectives of a pass in the one order in which all ranks call them: those of ZeRO, of context parallel
/// and of tensor parallel ranks. A rank that gives a pass up, or has no micro-batch for it, goes on with zeros in the
/// place of what it does not compute. The order is that of <see cref="DecoderLayer"/> and its parts; ranks whose
/// orders differ are found by <see cref="CheckedProcessGroup"/>.</summary>
/// <param name="model">The model.</param>
/// <param name="rung">Which layers are run again in backward, and what they keep.</param>
/// <param name="stream">The stream of the layers' weights, or null.</param>
/// <param name="gradient">The gradient of the trained weights, or null.</param>
internal sealed class PassCollectives(Decoder model, Rung rung, LayerStream? stream, IGradientReduction? gradient)
    : IPassCollectives
{
    private IEnumerable<Action> pass = [];
    private long begun;

    public bool NeedAllRanks => stream is { IsSharded: true } || model.Tensor is not null;

    private long Calls =>
        (stream?.Calls ?? 0)
        + (gradient?.Calls ?? 0)
        + (model.ContextParallel?.Calls ?? 0)
        + (model.Tensor?.Calls ?? 0);

    public void Begin(MicroBatch? batch, bool backward) => (begun, pass) = (Calls, Pass(batch, backward));

    public void Finish()
    {
        gradient?.Abandon();
        foreach (var collective in pass.Skip((int)(Calls - begun)))
        {
            using var scope = NewDisposeScope();
            collective();
        }
        pass = [];
    }

    private IEnumerable<Action> Pass(MicroBatch? batch, bool backward)
    {
        var layers = model.layers.Length;
        return Embeddings(batch)
            .Concat(Enumerable.Range(0, layers).SelectMany(layer => Forward(batch, layer)))
            .Concat(Head(batch, backward))
            .Concat(
                backward
                    ? Enumerable
                        .Range(0, layers)
                        .Reverse()
                        .SelectMany(layer => Backward(batch, layer))
                        .Concat(Reduce(null))
                    : []
            );
    }

    private IEnumerable<Action> Embeddings(MicroBatch? batch) => Sum(batch);

    private IEnumerable<Action> Forward(MicroBatch? batch, int layer) =>
        [
            .. Enter(layer),
            .. GatherKeys(batch, layer),
            .. Sum(batch), // output of attention
            .. Sum(batch), // of the MLP
        ];

    private IEnumerable<Action> Backward(MicroBatch? batch, int layer)
    {
        var again = rung.Recompute && layer < model.layers.Length - 1;
        return
        [
            .. Enter(layer),
            .. again ? GatherKeys(batch, layer) : [],
            .. again && !rung.Keeps.HasFlag(SavedForBackward.Residual) ? Sum(batch) : [],
            .. Sum(batch), // gradient of the MLP's input
            .. ReduceKeys(batch, layer),
            .. Sum(batch), // of attention's input
            .. Reduce(layer),
        ];
    }

    /// <summary>A layer's weights, where ranks divide them.</summary>
    private IEnumerable<Action> Enter(int layer) =>
        stream is { IsSharded: true } && stream.Has(layer) ? [() => stream.Enter(layer)] : [];

    /// <summary>The gradient of a unit, where ranks divide it.</summary>
    private IEnumerable<Action> Reduce(int? layer) =>
        gradient is not null && gradient.ReducesInPass(layer) ? [() => gradient.ReduceNothing(layer)] : [];

    /// <summary>Keys and values, where ranks share rows.</summary>
    private IEnumerable<Action> GatherKeys(MicroBatch? batch, int layer) =>
        model.ContextParallel is { } ranks && batch is not null
            ? [() => ranks.AllGather(Zeros(Keys(batch, layer)))]
            : [];

    /// <summary>The gradients of keys and values, where ranks share rows.</summary>
    private IEnumerable<Action> ReduceKeys(MicroBatch? batch, int layer) =>
        model.ContextParallel is { } ranks && batch is not null
            ? [() => ranks.ReduceScatter(Zeros([batch.Slice!.Ranks, .. Keys(batch, layer)]))]
            : [];

    /// <summary>A sum of activations or of their gradients (N, C), where ranks share matrices.</summary>
    private IEnumerable<Action> Sum(MicroBatch? batch) =>
        model.Tensor is { } ranks && batch is not null
            ? [() => ranks.AllReduce(Zeros([(long)batch.Count * batch.Length, model.Spec.HiddenSize]))]
            : [];

    /// <summary>The loss in chunks, where ranks share the vocabulary.</summary>
    private IEnumerable<Action> Head(MicroBatch? batch, bool backward)
    {
        if (model.Tensor is not { } ranks || batch is null)
            yield break;
        var (rows, chunk) = (
            batch.LossPositions.Length,
            ChunkedCrossEntropy.ChunkRows(model.lm_head, ranks, model.Type)
        );
        for (long from = 0; from < rows; from += chunk)
        {
            var count = Math.Min(chunk, rows - from);
            yield return () => ranks.AllReduce(Zeros([count], float32), ReduceOp.Max); // largest logits
            yield return () => ranks.AllReduce(Zeros([2, count], float32)); // sums of exp, and the targets' logits
            yield return () => ranks.AllReduce(Zeros([count], int32), ReduceOp.Max); // hits
            if (backward)
                yield return () => ranks.AllReduce(Zeros([count, model.Spec.HiddenSize]));
        }
    }

    private long[] Keys(MicroBatch batch, int layer)
    {
        var attention = model.layers[layer].self_attn.Spec;
        return [2, (long)batch.Count * batch.Length, attention.KvHeads, attention.HeadDim];
    }

    private Tensor Zeros(long[] shape, ScalarType? type = null) => zeros(shape, type ?? model.Type, model.Device);
}
