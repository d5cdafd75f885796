using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>A linear whose weight is a plain matrix.</summary>
internal sealed class DenseLinear(string name, Parameter weight, Parameter? bias = null)
    : Linear(name, weight.Value.shape[1], weight.Value.shape[0], bias)
{
    public Parameter weight { get; } = weight;

    public override IEnumerable<Parameter> Parameters => [weight, .. base.Parameters];

    public override long WeightBytes => weight.Value.numel() * weight.Value.element_size();

    public override IEnumerable<TensorSlot> Frozen => weight.RequiresGrad ? [] : [weight.Slot];

    public override Tensor Dense(ScalarType type) =>
        weight.Value.dtype == type ? weight.Value.alias() : weight.Value.to(type);

    public override ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        using var scope = NewDisposeScope();
        var y = mode.HasFlag(LinearMode.SkipOutput) ? null : Product(x, weight.Cast(x.dtype)).MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(y, null);
        var again = weight.RequiresGrad && mode.HasFlag(LinearMode.RecomputesInput);
        Tensor? held = null;
        return new(
            y,
            (gradient, accumulateInto) =>
            {
                using var scope = NewDisposeScope();
                BiasGradient(gradient);
                if (again)
                    held = gradient;
                else if (weight.RequiresGrad)
                    weight.Accumulate(gradient, x);
                return InputGradient(gradient, weight.Cast(gradient.dtype), accumulateInto);
            },
            !again
                ? null
                : input =>
                {
                    using var scope = NewDisposeScope();
                    weight.Accumulate(held!, input);
                }
        );
    }
}
