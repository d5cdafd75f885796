using Memopt.Trainer.Kernels;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>A frozen linear kept in 4 bits. The weight is expanded for a product, forward and back, and freed after it.</summary>
public sealed class Nf4Linear(string name, Nf4 weight, Parameter? bias, ScalarType compute)
    : Linear(name, weight.Shape[1], weight.Shape[0], bias), IDisposable
{
    public Nf4 Weight => weight;

    public override long WeightBytes => weight.Bytes;

    public override Tensor Dense(ScalarType type) => weight.Dequantize(type);

    public override Out forward(Tensor x, Pass pass)
    {
        using var _ = NewDisposeScope();
        using var __ = no_grad();
        var type = x.dtype;
        var y = AddBias(x.to(compute).matmul(weight.Dequantize(compute).t()).to(type)).MoveToOuterDisposeScope();
        return new(y, !pass.Learns ? null : gradient =>
        {
            using var _ = NewDisposeScope();
            using var __ = no_grad();
            BiasGradient(gradient);
            return gradient.to(compute).matmul(weight.Dequantize(compute)).to(type).MoveToOuterDisposeScope();
        });
    }

    public void Dispose() => weight.Dispose();
}
