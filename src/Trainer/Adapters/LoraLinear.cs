using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
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

    public double Dropout { get; } = dropout;

    public override LinearGroup GroupWith(Linear[] siblings) =>
        Dropout == 0
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

    public override LinearPass Begin(Tensor x, ForwardContext context)
    {
        if (context.AdaptersDisabled)
            return Inner.Begin(x, context);
        using var scope = NewDisposeScope();
        var mask =
            Dropout > 0 && context.Seed is { } seed
                ? lora_A.Slice is { Dim: 1 } slice
                    ? Mask(slice with { Shape = [x.shape[0], slice.Shape[1]] }, x, seed, context)
                    : Mask(null, x, seed, context)
                : null; // (N, In)
        var low = nn.functional.linear(LoraPass.Dropped(x, mask), lora_A.Cast(x.dtype)); // (N, r)
        mask?.MoveToOuterDisposeScope();
        low.MoveToOuterDisposeScope();
        var inner = Inner.Begin(x, context);
        scope.MoveAllOut();
        return new LoraPass(this, inner, x, low, mask);
    }

    /// <summary>Factors of the dropout. A rank that has some of the inputs draws them for all, so that the number of
    /// ranks does not change them.</summary>
    private Tensor Mask(WeightSlice? slice, Tensor x, long seed, ForwardContext context)
    {
        using var scope = NewDisposeScope();
        var mask = Kernels.Dropout.Mask(
            slice?.Shape ?? x.shape,
            x.dtype,
            x.device,
            Dropout,
            unchecked(seed * 1_000_003 + number),
            context.ContextParallel?.Rows
        );
        return (slice?.Take(mask) ?? mask).MoveToOuterDisposeScope();
    }

    public void Dispose() => (Inner as IDisposable)?.Dispose();
}
