using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>
/// Cross-entropy over the predicted positions only, in chunks, with its gradient formed beside the loss: logits of a whole batch never exist.
/// </summary>
public static class Head
{
    /// <summary>Largest chunk of fp32 logits, bytes.</summary>
    public const long ChunkBytes = 64L << 20;

    /// <summary>Positions in one chunk for a vocabulary.</summary>
    public static long ChunkRows(long vocabulary) => Math.Max(1, ChunkBytes / (4 * vocabulary));

    /// <param name="head">The output projection.</param>
    /// <param name="hidden">(B, T, C) after the last norm.</param>
    /// <param name="rows">(N) int64: which of the B·T positions predict.</param>
    /// <param name="targets">(N) int64: the tokens they should predict.</param>
    /// <param name="scale">The gradient is that of scale · sum.</param>
    /// <param name="pass">Whether the way back is wanted.</param>
    /// <returns>Sum of the losses, fp64, (); and for every prediction whether its likeliest token is the target.</returns>
    public static (Tensor Sum, Tensor Right, Pullback? Back) Loss(Linear head, Tensor hidden, Tensor rows, Tensor targets, double scale, Pass pass)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var width = hidden.shape[^1];
        var picked = hidden.reshape(-1, width).index_select(0, rows);        // (N, C)
        var gradient = pass.Learns ? empty_like(picked) : null;
        var sum = zeros([], float64, hidden.device);
        var right = empty(rows.shape, @bool, hidden.device);
        var chunk = ChunkRows(head.Out);
        for (long from = 0; from < rows.shape[0]; from += chunk)
        {
            using var inner = NewDisposeScope();
            var count = Math.Min(chunk, rows.shape[0] - from);
            var target = targets.narrow(0, from, count).unsqueeze(1);        // (n, 1)
            var (raw, back) = head.forward(picked.narrow(0, from, count), pass);
            var logits = raw.to(float32);                                    // (n, V)
            var total = logits.logsumexp(-1, keepdim: true);
            sum.add_((total - logits.gather(1, target)).to(float64).sum());
            right.narrow(0, from, count).copy_(logits.argmax(-1).eq(target.squeeze(1)));
            if (gradient is null)
                continue;
            var slope = logits.sub(total).exp_();                            // softmax − one-hot
            slope.scatter_add_(1, target, full_like(target, -1, float32)).mul_(scale);
            gradient.narrow(0, from, count).copy_(back!(slope.to(raw.dtype)));
        }
        sum.MoveToOuterDisposeScope();
        right.MoveToOuterDisposeScope();
        if (gradient is null)
            return (sum, right, null);
        gradient.MoveToOuterDisposeScope();
        var shape = hidden.shape;
        return (sum, right, _ =>
        {
            using var inner = NewDisposeScope();
            var whole = zeros([shape[0] * shape[1], width], gradient.dtype, gradient.device);
            whole.index_copy_(0, rows, gradient);
            gradient.Dispose();
            return whole.reshape(shape).MoveToOuterDisposeScope();
        }
        );
    }
}
