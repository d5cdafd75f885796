using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>Cross-entropy of rows of logits with its gradient formed in their place.</summary>
internal static class CrossEntropy
{
    private static readonly Kernel kernel = new("CrossEntropy.cu");

    /// <param name="logits">(N, V); overwritten with scale · gradient of the summed loss when
    /// <paramref name="gradient"/> is set.</param>
    /// <param name="targets">(N) int64.</param>
    /// <param name="scale">Factor of the gradient.</param>
    /// <param name="cap">Soft cap: the loss is that of cap · tanh(logits / cap); 0 is none.</param>
    /// <param name="gradient">Whether the gradient is wanted.</param>
    /// <returns>Losses (N) fp32, nats; and whether the likeliest token, the first among equals, is the target, (N)
    /// bool.</returns>
    public static (Tensor Losses, Tensor Right) ForwardBackward(
        Tensor logits,
        Tensor targets,
        double scale,
        double cap,
        bool gradient
    )
    {
        if (!Kernel.Supports(logits))
            return Reference(logits, targets, scale, cap, gradient);
        var (rows, width) = (logits.shape[0], logits.shape[1]);
        var losses = empty([rows], float32, logits.device);
        var right = empty([rows], @bool, logits.device);
        kernel.Launch(
            "learn",
            logits.dtype,
            (rows, 1),
            (width <= 4096 ? 256 : 1024, 1),
            [
                logits,
                targets,
                losses,
                right,
                (int)width,
                (float)scale,
                (float)cap,
                gradient ? 1 : 0,
                Kernel.Packed(width, logits),
            ]
        );
        return (losses, right);
    }

    internal static (Tensor Losses, Tensor Right) Reference(
        Tensor logits,
        Tensor targets,
        double scale,
        double cap,
        bool gradient
    )
    {
        using var scope = NewDisposeScope();
        var target = targets.unsqueeze(1);
        var raw = logits.to(float32); // (N, V)
        var capped = cap > 0 ? (raw / cap).tanh_().mul_(cap) : raw;
        var total = capped.logsumexp(-1, keepdim: true);
        var losses = (total - capped.gather(1, target)).squeeze(1);
        var right = capped.argmax(-1).eq(targets);
        if (gradient)
        {
            var slope = capped.sub(total).exp_(); // softmax − one-hot
            slope.scatter_add_(1, target, full_like(target, -1, float32)).mul_(scale);
            logits.copy_(cap > 0 ? slope.mul_(1 - (capped / cap).square()) : slope);
        }
        return (losses.MoveToOuterDisposeScope(), right.MoveToOuterDisposeScope());
    }
}
