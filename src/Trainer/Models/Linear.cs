using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>y = x Wᵀ + b. What W is kept in, and whether something is added to the product, is the subclass's.</summary>
public abstract class Linear(string name, long inputs, long outputs, Parameter? bias)
{
    /// <summary>Module name as in the weights file, without <c>.weight</c>.</summary>
    public string Name { get; } = name;

    public long In { get; } = inputs;

    public long Out { get; } = outputs;

    public Parameter? bias { get; } = bias;

    public abstract Out forward(Tensor x, Pass pass);                        // (…, In) -> (…, Out)

    /// <summary>W in a float type, (Out, In); the caller disposes it.</summary>
    public abstract Tensor Dense(ScalarType type);

    /// <summary>Parameters in the order of the weights file.</summary>
    public virtual IEnumerable<Parameter> Parameters => bias is null ? [] : [bias];

    /// <summary>Bytes its frozen weight takes.</summary>
    public abstract long WeightBytes { get; }

    protected Tensor AddBias(Tensor y)
    {
        if (bias is null)
            return y;
        using var b = bias.As(y.dtype);
        return y.add_(b);
    }

    protected void BiasGradient(Tensor gradient)
    {
        if (bias is not { Trained: true })
            return;
        using var sum = gradient.reshape(-1, Out).to(float32).sum(dim: 0);
        bias.Accumulate(sum);
    }
}

/// <summary>A linear whose weight is a plain matrix.</summary>
public sealed class DenseLinear(string name, Parameter weight, Parameter? bias = null)
    : Linear(name, weight.Value.shape[1], weight.Value.shape[0], bias)
{
    public Parameter weight { get; } = weight;

    public override IEnumerable<Parameter> Parameters => [weight, .. base.Parameters];

    public override long WeightBytes => weight.Value.numel() * weight.Value.element_size();

    public override Tensor Dense(ScalarType type) => weight.As(type);

    public override Out forward(Tensor x, Pass pass)
    {
        using var _ = NewDisposeScope();
        using var __ = no_grad();
        var y = AddBias(x.matmul(weight.As(x.dtype).t()));
        if (!pass.Learns)
            return new(y.MoveToOuterDisposeScope(), null);
        return new(y.MoveToOuterDisposeScope(), gradient =>
        {
            using var _ = NewDisposeScope();
            using var __ = no_grad();
            if (weight.Trained)
                weight.Accumulate(gradient.reshape(-1, Out).t().matmul(x.reshape(-1, In)));
            BiasGradient(gradient);
            return gradient.matmul(weight.As(gradient.dtype)).MoveToOuterDisposeScope();
        });
    }
}
