using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>A linear plus scale · B A dropout(x), B A of low rank (Hu et al. 2021, arXiv 2106.09685), as PEFT defines
/// it.</summary>
internal sealed class LoraLinear(
    Linear inner,
    Parameter lora_A,
    Parameter lora_B,
    double scale,
    double dropout,
    int number
) : Linear(inner.Name, inner.InFeatures, inner.OutFeatures, inner.bias), IDisposable
{
    public Linear Inner { get; } = inner;

    public Parameter lora_A { get; } = lora_A; // (r, In)

    public Parameter lora_B { get; } = lora_B; // (Out, r)

    public double Scale { get; } = scale;

    public int Rank => (int)lora_A.Value.shape[0];

    public override IEnumerable<Parameter> Parameters => [.. Inner.Parameters, lora_A, lora_B];

    public override int? FusableRank => dropout > 0 ? null : Rank;

    public override LinearGroup GroupWith(Linear[] siblings) =>
        dropout == 0
        && siblings.Length > 1
        && siblings.OfType<LoraLinear>().All(lora => lora.Rank == Rank && lora.Scale == Scale)
            ? new LoraGroup(siblings)
            : base.GroupWith(siblings);

    public override long WeightBytes => Inner.WeightBytes;

    public override IEnumerable<TensorSlot> Frozen => Inner.Frozen;

    /// <summary>The inner weight alone; <see cref="Merged"/> has the adapter in it.</summary>
    public override Tensor Dense(ScalarType type) => Inner.Dense(type);

    /// <summary>W + scale · B A, summed in fp32, (Out, In).</summary>
    public Tensor Merged(Tensor weight)
    {
        using var _ = NewDisposeScope();
        using var __ = no_grad();
        var delta = lora_B.Value.to(float32).matmul(lora_A.Value.to(float32)).mul_(Scale);
        return weight.to(float32).add(delta.to(weight.device)).MoveToOuterDisposeScope();
    }

    public override ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        if (context.AdaptersDisabled)
            return Inner.forward(x, context, mode);
        using var scope = NewDisposeScope();
        var type = x.dtype;
        var inner = Inner.forward(x, context, mode);
        var mask =
            dropout > 0 && context.Seed is { } seed
                ? Dropout.Mask(x.shape, type, x.device, dropout, unchecked(seed * 1_000_003 + number))
                : null; // (N, In)
        var low = nn.functional.linear(Dropped(x, mask), lora_A.Cast(type)); // (N, r)
        LowRank? pending = null;
        if (mode.HasFlag(LinearMode.DeferLowRank))
        {
            pending = new LowRank(low, lora_B.Cast(type), Scale);
            if (!lora_B.HasCast(type))
                // Converted here, since no optimizer keeps a copy: the caller needs it longer.
                pending.Right.MoveToOuterDisposeScope();
        }
        else
            inner.Computed?.addmm_(low, lora_B.Cast(type).t(), 1, (float)Scale);
        inner.Computed?.MoveToOuterDisposeScope();
        if (context.NeedsGradient || pending is not null)
            low.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(inner.Computed, null, PendingLowRank: pending);
        mask?.MoveToOuterDisposeScope();
        return Differentiable(x, inner, low, mask, mode) with { PendingLowRank = pending };
    }

    /// <summary>The result with its backward.</summary>
    /// <param name="x">Input (N, In).</param>
    /// <param name="inner">Of the frozen linear; its output has the low-rank part already, or leaves it out.</param>
    /// <param name="low">x Aᵀ, (N, r).</param>
    /// <param name="mask">Of the dropout, (N, In), or null.</param>
    /// <param name="mode">What the caller does itself.</param>
    private ForwardResult Differentiable(Tensor x, ForwardResult inner, Tensor low, Tensor? mask, LinearMode mode)
    {
        var type = x.dtype;
        var (recomputes, defers) = (
            mode.HasFlag(LinearMode.RecomputesInput),
            mode.HasFlag(LinearMode.DeferLowRankGradient)
        );
        Tensor? dlow = null; // (N, r); Scale is to come

        Tensor Backward(Tensor gradient, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            var dx = inner.Backward!(gradient, accumulateInto);
            lora_B.Accumulate(gradient, low, Scale);
            low.Dispose();
            dlow = gradient.matmul(lora_B.Cast(type));
            if (mask is not null)
                dx.add_(dlow.matmul(lora_A.Cast(type)).mul_(mask), Scale);
            else if (!defers)
                dx.addmm_(dlow, lora_A.Cast(type), 1, (float)Scale);
            if (recomputes)
                dlow.DetachFromDisposeScope();
            else
                lora_A.Accumulate(dlow, Dropped(x, mask), Scale);
            return accumulateInto ?? dx.MoveToOuterDisposeScope();
        }

        void WeightGradient(Tensor input)
        {
            using var scope = NewDisposeScope();
            lora_A.Accumulate(dlow!, Dropped(input, mask), Scale);
            dlow!.Dispose();
            inner.WeightGradient?.Invoke(input);
        }

        return new(
            inner.Computed,
            Backward,
            recomputes ? WeightGradient : null,
            PendingLowRankGradient: defers ? () => new LowRank(dlow!, lora_A.Cast(type), Scale) : null
        );
    }

    private static Tensor Dropped(Tensor input, Tensor? mask) => mask is null ? input : input * mask;

    public void Dispose() => (Inner as IDisposable)?.Dispose();
}
