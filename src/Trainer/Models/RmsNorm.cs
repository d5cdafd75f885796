using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>x / rms(x) · weight over the last dimension, the mean taken in fp32 (Zhang and Sennrich 2019, arXiv 1910.07467).</summary>
public sealed class RmsNorm(Parameter weight, double eps)
{
    public Parameter weight { get; } = weight;

    public Out forward(Tensor x, Pass pass)                                  // (…, C) -> (…, C)
    {
        var type = x.dtype;
        var (value, back) = Local.Run(pass.Learns, weight.Trained ? [x, weight.Value] : [x], inputs =>
        {
            var wide = inputs[0].to(float32);
            var scaled = wide * rsqrt(wide.square().mean([-1], keepdim: true) + eps);
            return (weight.Trained ? inputs[1] : weight.Value).to(type) * scaled.to(type);
        });
        return new(value, back is null ? null : gradient =>
        {
            var gradients = back(gradient);
            if (weight.Trained)
                weight.Accumulate(gradients[1]);
            return gradients[0];
        });
    }
}
