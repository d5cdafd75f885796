using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>Root-mean-square norm of rows with the residual sum before it and the residual gradient after it (Zhang and
/// Sennrich 2019, arXiv 1910.07467).</summary>
internal static class FusedRmsNorm
{
    private static readonly Kernel kernel = new("RmsNorm.cu");

    /// <summary>x / rms(x) · weight, the mean in fp32 and the quotient rounded to the type before the product, as
    /// transformers does.</summary>
    /// <param name="x">(…, C), contiguous.</param>
    /// <param name="delta">As x, or null. It becomes x + delta, and that is what is normed.</param>
    /// <param name="weight">(C) in the type of x.</param>
    /// <param name="eps">Added to the mean of squares.</param>
    /// <returns>The norm as x, and 1 / rms of each row, fp32 (rows, 1), for backward.</returns>
    public static (Tensor Y, Tensor Rstd) Forward(Tensor x, Tensor? delta, Tensor weight, double eps)
    {
        if (!Kernel.Supports(x))
            return Reference(delta is null ? x : delta.add_(x), weight, eps);
        var (rows, width) = Rows(x);
        var y = empty_like(x);
        var rstd = empty([rows, 1], float32, x.device);
        var (grid, block) = Shape(rows, width);
        kernel.Launch(
            "forward",
            x.dtype,
            grid,
            block,
            [
                x,
                KernelArg.Maybe(delta),
                weight,
                y,
                rstd,
                rows,
                (int)width,
                (float)eps,
                Kernel.Packed(width, x, delta, weight),
            ]
        );
        return (y, rstd);
    }

    /// <summary>Gradient of the normed input, added to <paramref name="accumulateInto"/> where given.</summary>
    /// <param name="dy">Gradient of the norm.</param>
    /// <param name="x">What was normed.</param>
    /// <param name="weight">(C) in the type of x.</param>
    /// <param name="rstd">From forward.</param>
    /// <param name="accumulateInto">As x; overwritten with the sum and returned.</param>
    public static Tensor Backward(Tensor dy, Tensor x, Tensor weight, Tensor rstd, Tensor? accumulateInto)
    {
        if (!Kernel.Supports(x))
            return ReferenceBackward(dy, x, weight, rstd, accumulateInto);
        var (rows, width) = Rows(x);
        var dx = accumulateInto ?? empty_like(x);
        var (grid, block) = Shape(rows, width);
        kernel.Launch(
            "backward",
            x.dtype,
            grid,
            block,
            [
                dy,
                x,
                weight,
                rstd,
                KernelArg.Maybe(accumulateInto),
                dx,
                rows,
                (int)width,
                Kernel.Packed(width, dy, x, weight, dx),
            ]
        );
        return dx;
    }

    /// <summary>Gradient of the weight, fp32 (C).</summary>
    public static Tensor WeightGradient(Tensor dy, Tensor x, Tensor rstd)
    {
        using var scope = NewDisposeScope();
        var (rows, width) = Rows(x);
        if (!Kernel.Supports(x))
            return (dy.reshape(rows, width).to(float32) * Scaled(x, rstd).to(x.dtype))
                .sum(dim: 0)
                .MoveToOuterDisposeScope();
        var chunk = Math.Max(64, (rows + 255) / 256);
        var parts = (rows + chunk - 1) / chunk;
        var partial = empty([parts, width], float32, x.device);
        kernel.Launch(
            "weight_gradient",
            x.dtype,
            ((width + 127) / 128, parts),
            (128, 1),
            [dy, x, rstd, partial, rows, (int)width, (int)chunk]
        );
        return partial.sum(dim: 0).MoveToOuterDisposeScope();
    }

    internal static (Tensor Y, Tensor Rstd) Reference(Tensor x, Tensor weight, double eps)
    {
        using var scope = NewDisposeScope();
        var rows = x.reshape(-1, x.shape[^1]).to(float32);
        var rstd = rows.square().mean([-1], keepdim: true).add_(eps).rsqrt_();
        var y = Scaled(x, rstd).to(x.dtype).mul_(weight).reshape(x.shape);
        return (y.MoveToOuterDisposeScope(), rstd.MoveToOuterDisposeScope());
    }

    internal static Tensor ReferenceBackward(Tensor dy, Tensor x, Tensor weight, Tensor rstd, Tensor? accumulateInto)
    {
        using var scope = NewDisposeScope();
        var (rows, width) = Rows(x);
        var scaled = Scaled(x, rstd);
        var g = dy.reshape(rows, width).to(float32) * weight.to(float32);
        var dx = g.sub_(scaled.mul_((g * scaled).mean([-1], keepdim: true))).mul_(rstd).reshape(x.shape);
        return accumulateInto is null
            ? dx.to(x.dtype).MoveToOuterDisposeScope()
            : accumulateInto.copy_(dx.add_(accumulateInto));
    }

    private static Tensor Scaled(Tensor x, Tensor rstd) => x.reshape(-1, x.shape[^1]).to(float32) * rstd;

    private static (long Rows, long Width) Rows(Tensor x) => (x.numel() / x.shape[^1], x.shape[^1]);

    /// <summary>Short rows get a warp each, eight to a block; long ones a block.</summary>
    private static ((long, long) Grid, (int, int) Block) Shape(long rows, long width) =>
        width <= 512 ? (((rows + 7) / 8, 1), (32, 8)) : ((rows, 1), (width <= 2048 ? 128 : 256, 1));
}
