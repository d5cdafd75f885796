using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>x / rms(x) · weight over the last dimension, the mean taken in fp32 (Zhang and Sennrich 2019, arXiv 1910.07467).</summary>
public sealed class RmsNorm(Parameter weight, double eps)
{
    public Parameter weight { get; } = weight;

    /// <param name="x">(…, C).</param>
    /// <param name="pass">Whether the way back is wanted.</param>
    /// <param name="delta">Added to x before the norm: it becomes the sum.</param>
    public Out forward(Tensor x, Pass pass, Tensor? delta = null)              // (…, C) -> (…, C)
    {
        using var scope = NewDisposeScope();
        var (y, rstd) = Kernels.RmsNorm.Forward(x, delta, weight.As(x.dtype), eps);
        y.MoveToOuterDisposeScope();
        if (!pass.Learns)
            return new(y, null);
        rstd.MoveToOuterDisposeScope();
        var normed = delta ?? x;
        return new(y, (gradient, onto) =>
        {
            using var scope = NewDisposeScope();
            if (weight.Trained)
                weight.Accumulate(Kernels.RmsNorm.WeightGradient(gradient, normed, rstd));
            var dx = Kernels.RmsNorm.Backward(gradient, normed, weight.As(normed.dtype), rstd, onto);
            rstd.Dispose();
            return onto ?? dx.MoveToOuterDisposeScope();
        });
    }
}
