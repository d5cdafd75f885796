using Memopt.Trainer.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>What the caller of a linear needs; less lets the linear save or compute less.</summary>
[Flags]
public enum LinearMode
{
    /// <summary>The output, and a backward that has all it needs.</summary>
    Full = 0,

    /// <summary>The caller recomputes the input and gives it to <see cref="ForwardResult.WeightGradient"/>, so the input is not saved.</summary>
    RecomputesInput = 1,

    /// <summary>The output is known already; only backward is needed.</summary>
    SkipOutput = 2,

    /// <summary>The caller adds the low-rank part of the output, from <see cref="ForwardResult.PendingLowRank"/>.</summary>
    DeferLowRank = 4,

    /// <summary>The caller adds the low-rank part of the input's gradient, from <see cref="ForwardResult.PendingLowRankGradient"/>.</summary>
    DeferLowRankGradient = 8,
}

/// <summary>y = x Wᵀ + b. What W is kept in, and whether something is added to the product, is the subclass's.</summary>
public abstract class Linear(string name, long inputs, long outputs, Parameter? bias)
{
    /// <summary>Module name as in the weights file, without <c>.weight</c>.</summary>
    public string Name { get; } = name;

    public long InFeatures { get; } = inputs;

    public long OutFeatures { get; } = outputs;

    public Parameter? bias { get; } = bias;

    /// <summary>(N, In) → (N, Out).</summary>
    public abstract ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full);

    /// <summary>W in a float type, (Out, In); the caller disposes it.</summary>
    public abstract Tensor Dense(ScalarType type);

    /// <summary>Parameters in the order of the weights file.</summary>
    public virtual IEnumerable<Parameter> Parameters => bias is null ? [] : [bias];

    /// <summary>Rank of the low-rank part that it can leave to its caller; null when it has none or cannot.</summary>
    public virtual int? FusableRank => null;

    /// <summary>How this linear and all its siblings (itself among them), which have the same input, are run.</summary>
    public virtual LinearGroup GroupWith(Linear[] siblings) => new(siblings);

    /// <summary>What is large and never changes, and so may lie elsewhere between uses.</summary>
    public virtual IEnumerable<TensorSlot> Frozen => [];

    /// <summary>Bytes its frozen weight takes.</summary>
    public abstract long WeightBytes { get; }

    /// <summary>x Wᵀ + b for a weight in the type of x.</summary>
    protected Tensor Product(Tensor x, Tensor weight) => nn.functional.linear(x, weight, bias?.Cast(x.dtype));

    /// <summary>gradient · W, added to <paramref name="accumulateInto"/> where given.</summary>
    protected Tensor InputGradient(Tensor gradient, Tensor weight, Tensor? accumulateInto)
    {
        if (accumulateInto is null)
            return gradient.matmul(weight).MoveToOuterDisposeScope();
        return accumulateInto.addmm_(gradient, weight, 1, 1);
    }

    protected void BiasGradient(Tensor gradient)
    {
        if (bias is { RequiresGrad: true })
            bias.Accumulate(gradient.sum(dim: 0, type: float32));
    }
}

/// <summary>A linear whose weight is a plain matrix.</summary>
public sealed class DenseLinear(string name, Parameter weight, Parameter? bias = null)
    : Linear(name, weight.Value.shape[1], weight.Value.shape[0], bias)
{
    public Parameter weight { get; } = weight;

    public override IEnumerable<Parameter> Parameters => [weight, .. base.Parameters];

    public override long WeightBytes => weight.Value.numel() * weight.Value.element_size();

    public override IEnumerable<TensorSlot> Frozen => weight.RequiresGrad ? [] : [weight.Slot];

    public override Tensor Dense(ScalarType type) => weight.Value.dtype == type ? weight.Value.alias() : weight.Value.to(type);

    public override ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        using var scope = NewDisposeScope();
        var y = mode.HasFlag(LinearMode.SkipOutput) ? null : Product(x, weight.Cast(x.dtype)).MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(y!, null);
        var again = weight.RequiresGrad && mode.HasFlag(LinearMode.RecomputesInput);
        Tensor? held = null;
        return new(y!, (gradient, accumulateInto) =>
        {
            using var scope = NewDisposeScope();
            BiasGradient(gradient);
            if (again)
                held = gradient;
            else if (weight.RequiresGrad)
                weight.Accumulate(gradient, x);
            return InputGradient(gradient, weight.Cast(gradient.dtype), accumulateInto);
        }, !again ? null : input =>
        {
            using var scope = NewDisposeScope();
            weight.Accumulate(held!, input);
        });
    }
}
