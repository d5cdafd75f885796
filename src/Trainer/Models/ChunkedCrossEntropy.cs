using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Cross-entropy over the predicted positions only, in chunks, with its gradient formed beside the loss:
/// logits of a whole batch never exist.
/// </summary>
internal static class ChunkedCrossEntropy
{
    /// <summary>Positions whose logits are there at once; as many on every rank.</summary>
    public static long ChunkRows(Linear head, TensorParallel? tensor, ScalarType type)
    {
        var ranks = tensor?.Ranks ?? 1;
        return Footprints.ChunkRows((head.WholeShape[0] + ranks - 1) / ranks, type.ElementSize());
    }

    /// <param name="head">The output projection.</param>
    /// <param name="hidden">(N, C) after the last norm.</param>
    /// <param name="rows">(P) int64: which of the N positions predict.</param>
    /// <param name="targets">(P) int64: the tokens they should predict.</param>
    /// <param name="scale">The gradient is that of scale · sum.</param>
    /// <param name="context">Whether backward is needed.</param>
    /// <param name="cap">Soft cap of the logits; 0 is none.</param>
    /// <param name="tensor">The ranks of which each has the logits of some tokens; null where this one has all.</param>
    /// <returns>Sum of the losses, fp64, (); and for every prediction whether its likeliest token is the
    /// target.</returns>
    public static (Tensor Sum, Tensor Right, Pullback? Back) Loss(
        Linear head,
        Tensor hidden,
        Tensor rows,
        Tensor targets,
        double scale,
        ForwardContext context,
        double cap = 0,
        TensorParallel? tensor = null
    )
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var picked = hidden.index_select(0, rows); // (P, C); becomes its own gradient, chunk by chunk
        var sum = zeros([], float64, hidden.device);
        var right = empty(rows.shape, @bool, hidden.device);
        var chunk = ChunkRows(head, tensor, hidden.dtype);
        for (long from = 0; from < rows.shape[0]; from += chunk)
        {
            using var inner = NewDisposeScope();
            var count = Math.Min(chunk, rows.shape[0] - from);
            var part = picked.narrow(0, from, count);
            var (logits, backward) = head.forward(part, context); // (n, V)
            var expected = targets.narrow(0, from, count);
            var (losses, hits) = tensor is null
                ? CrossEntropy.ForwardBackward(logits, expected, scale, cap, context.NeedsGradient)
                : tensor.CrossEntropy(
                    logits,
                    expected - head.Slice!.Ranges[0].Start,
                    scale,
                    cap,
                    context.NeedsGradient
                );
            sum.add_(losses.sum(float64));
            right.narrow(0, from, count).copy_(hits);
            if (!context.NeedsGradient)
                continue;
            var gradient = backward!(logits);
            part.copy_(tensor?.AllReduce(gradient) ?? gradient);
        }
        sum.MoveToOuterDisposeScope();
        right.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return (sum, right, null);
        picked.MoveToOuterDisposeScope();
        var shape = hidden.shape;
        return (
            sum,
            right,
            (_, _) =>
            {
                using var inner = NewDisposeScope();
                var whole = zeros(shape, picked.dtype, picked.device).index_copy_(0, rows, picked);
                picked.Dispose();
                return whole.MoveToOuterDisposeScope();
            }
        );
    }
}
