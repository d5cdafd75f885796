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

    public override Out forward(Tensor x, Pass pass, Wanted wanted = Wanted.All)
    {
        using var scope = NewDisposeScope();
        var type = x.dtype;
        var y = wanted.HasFlag(Wanted.NoValue) ? null : Product(x.to(compute), weight.Dequantize(compute)).to(type).MoveToOuterDisposeScope();
        return new(y!, !pass.Learns ? null : (gradient, onto) =>
        {
            using var scope = NewDisposeScope();
            BiasGradient(gradient);
            var dense = weight.Dequantize(compute);
            if (compute == type)
                return ProductBack(gradient, dense, onto);
            var dx = gradient.to(compute).matmul(dense).to(type);
            return onto is null ? dx.MoveToOuterDisposeScope() : onto.add_(dx);
        });
    }

    public void Dispose() => weight.Dispose();
}
