using Memopt.Trainer.Autograd;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>x / rms(x) · weight over the last dimension, the mean taken in fp32 (Zhang and Sennrich 2019, arXiv
/// 1910.07467).</summary>
internal sealed class RmsNorm(Parameter weight, double eps)
{
    public Parameter weight { get; } = weight;

    /// <param name="x">(…, C).</param>
    /// <param name="context">Whether backward is needed.</param>
    /// <param name="delta">Added to x before the norm: it becomes the sum.</param>
    public ForwardResult forward(Tensor x, ForwardContext context, Tensor? delta = null) // (…, C) -> (…, C)
    {
        using var scope = NewDisposeScope();
        var (y, rstd) = Kernels.FusedRmsNorm.Forward(x, delta, weight.Cast(x.dtype), eps);
        y.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(y, null);
        rstd.MoveToOuterDisposeScope();
        var normed = delta ?? x;
        return new(
            y,
            (gradient, accumulateInto) =>
            {
                using var scope = NewDisposeScope();
                if (weight.RequiresGrad)
                    weight.Accumulate(Kernels.FusedRmsNorm.WeightGradient(gradient, normed, rstd));
                var dx = Kernels.FusedRmsNorm.Backward(
                    gradient,
                    normed,
                    weight.Cast(normed.dtype),
                    rstd,
                    accumulateInto
                );
                rstd.Dispose();
                return accumulateInto ?? dx.MoveToOuterDisposeScope();
            }
        );
    }
}
