using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>What one step of the optimizer is made with.</summary>
/// <param name="Number">From 1, for bias correction.</param>
/// <param name="Rate">Learning rate.</param>
/// <param name="Decay">Decoupled weight decay.</param>
/// <param name="Beta1">Decay of the mean.</param>
/// <param name="Beta2">Decay of the squares.</param>
/// <param name="Epsilon">Added to the denominator.</param>
/// <param name="Clip">Largest gradient norm; 0 leaves it alone.</param>
/// <param name="Unscale">Factor that takes the loss scale off the gradient; 1 without one.</param>
internal readonly record struct AdamWStep(
    int Number,
    double Rate,
    double Decay,
    double Beta1,
    double Beta2,
    double Epsilon,
    double Clip,
    double Unscale = 1
);

/// <summary>AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) as torch.optim computes it, over flat fp32 arrays in
/// one launch.</summary>
internal static class AdamW
{
    private static readonly Kernel kernel = new("AdamW.cu");

    /// <summary>L2 norm of unscale · gradient, fp32, ().</summary>
    /// <param name="gradient">(N) fp32.</param>
    /// <param name="unscale">Factor.</param>
    /// <param name="partial">Scratch of <see cref="Scratch"/>, zero at first; may be null on a CPU.</param>
    public static Tensor Norm(Tensor gradient, double unscale, Tensor? partial)
    {
        if (!Kernel.Supports(gradient))
            return ReferenceNorm(gradient, unscale);
        var norm = empty([], float32, gradient.device);
        using var finished = partial!.narrow(0, Blocks, 1);
        kernel.Launch(
            "gradient_norm",
            float32,
            (Blocks, 1),
            (256, 1),
            [gradient, gradient.numel(), partial, finished, norm, (float)unscale]
        );
        return norm;
    }

    /// <summary>The square of <see cref="Norm"/>, fp64, (): ranks that divide a gradient add it up.</summary>
    public static Tensor SquaredNorm(Tensor gradient, double unscale, Tensor? partial)
    {
        if (!Kernel.Supports(gradient))
            return ReferenceSquaredNorm(gradient, unscale);
        using var scope = NewDisposeScope();
        return Norm(gradient, unscale, partial).to(float64).square().MoveToOuterDisposeScope();
    }

    /// <summary>Moves the weights and zeroes the gradient; where the norm is not finite it zeroes the gradient
    /// alone.</summary>
    /// <param name="value">(N) fp32 weights.</param>
    /// <param name="gradient">(N) fp32.</param>
    /// <param name="mean">(N) fp32 first moment.</param>
    /// <param name="square">(N) fp32 second moment.</param>
    /// <param name="copy">(N) the weights in the type of the activations, or null.</param>
    /// <param name="norm">From <see cref="Norm"/>.</param>
    /// <param name="step">Settings.</param>
    public static void Step(
        Tensor value,
        Tensor gradient,
        Tensor mean,
        Tensor square,
        Tensor? copy,
        Tensor norm,
        AdamWStep step
    )
    {
        if (!Kernel.Supports(gradient))
        {
            Reference(value, gradient, mean, square, copy, norm, step);
            return;
        }
        var count = value.numel();
        kernel.Launch(
            "step",
            copy?.dtype ?? float32,
            (Math.Min((count + 255) / 256, Cuda.Multiprocessors * 16L), 1),
            (256, 1),
            [
                value,
                gradient,
                mean,
                square,
                KernelArg.Maybe(copy),
                norm,
                count,
                (float)step.Clip,
                (float)(1 - step.Rate * step.Decay),
                (float)step.Beta1,
                (float)step.Beta2,
                (float)step.Epsilon,
                (float)Spread(step),
                (float)Rate(step),
                (float)step.Unscale,
            ]
        );
    }

    /// <summary>Room for the partial sums of <see cref="Norm"/> and the count of those that are there, zero.</summary>
    public static Tensor Scratch(Device device) => zeros([Blocks + 1], float32, device);

    private const long Blocks = 512,
        ReferencePiece = 1 << 20;

    private static double Spread(AdamWStep step) => Math.Sqrt(1 - Math.Pow(step.Beta2, step.Number));

    private static double Rate(AdamWStep step) => step.Rate / (1 - Math.Pow(step.Beta1, step.Number));

    internal static Tensor ReferenceNorm(Tensor gradient, double unscale)
    {
        using var scope = NewDisposeScope();
        return ReferenceSquaredNorm(gradient, unscale).sqrt().to(float32).MoveToOuterDisposeScope();
    }

    /// <summary>In fp64 a piece at a time: rounded to fp32 it does not depend on how many ranks divide the
    /// gradient.</summary>
    private static Tensor ReferenceSquaredNorm(Tensor gradient, double unscale)
    {
        using var scope = NewDisposeScope();
        var sum = zeros([], float64, gradient.device);
        for (long at = 0; at < gradient.numel(); at += ReferencePiece)
        {
            using var inner = NewDisposeScope();
            var piece = gradient.narrow(0, at, Math.Min(ReferencePiece, gradient.numel() - at)).to(float64);
            sum.add_(piece.dot(piece));
        }
        return sum.mul_(unscale * unscale).MoveToOuterDisposeScope();
    }

    internal static void Reference(
        Tensor value,
        Tensor gradient,
        Tensor mean,
        Tensor square,
        Tensor? copy,
        Tensor norm,
        AdamWStep step
    )
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var length = norm.cpu().item<float>();
        var divisor = empty_like(square); // before anything changes: a step that lacks memory is made again
        if (float.IsFinite(length))
        {
            gradient.mul_((step.Clip > 0 ? Math.Min(1, step.Clip / (length + 1e-6)) : 1) * step.Unscale);
            if (step.Decay > 0)
                value.mul_(1 - step.Rate * step.Decay);
            mean.mul_(step.Beta1).add_(gradient, 1 - step.Beta1);
            square.mul_(step.Beta2).addcmul_(gradient, gradient, 1 - step.Beta2);
            value.addcdiv_(mean, divisor.copy_(square).sqrt_().div_(Spread(step)).add_(step.Epsilon), -Rate(step));
            copy?.copy_(value);
        }
        gradient.zero_();
    }
}
