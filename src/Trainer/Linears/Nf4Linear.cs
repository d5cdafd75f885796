using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>A frozen linear kept in 4 bits. The weight is expanded for a product, forward and back, in room that the
/// model's share.</summary>
internal sealed class Nf4Linear : Linear, IDisposable
{
    private readonly Nf4 weight;
    private readonly ScalarType compute;
    private readonly Nf4Scratch scratch;

    /// <param name="name">Module name.</param>
    /// <param name="weight">(Out, In).</param>
    /// <param name="bias">(Out), or none.</param>
    /// <param name="compute">Type the weight is expanded to.</param>
    /// <param name="scratch">Where.</param>
    public Nf4Linear(string name, Nf4 weight, Parameter? bias, ScalarType compute, Nf4Scratch scratch)
        : base(name, weight.Shape[1], weight.Shape[0], bias)
    {
        (this.weight, this.compute, this.scratch) = (weight, compute, scratch);
        scratch.Attach(weight);
    }

    public Nf4 Weight => weight;

    /// <summary>Allocates the memory that all 4-bit linears of the model expand their weights into.</summary>
    public void AllocateScratch() => scratch.Allocate(weight.Codes.device, compute);

    /// <summary>Bytes of that memory.</summary>
    public long ScratchBytes => scratch.Bytes;

    public override IEnumerable<TensorSlot> Frozen => weight.Slots;

    public override long WeightBytes => weight.Bytes;

    public override Tensor Dense(ScalarType type) => weight.Dequantize(type);

    public override ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        using var scope = NewDisposeScope();
        var type = x.dtype;
        var y = mode.HasFlag(LinearMode.SkipOutput)
            ? null
            : Product(x.to(compute), scratch.Expand(weight, compute)).to(type).MoveToOuterDisposeScope();
        return new(
            y,
            !context.NeedsGradient
                ? null
                : (gradient, accumulateInto) =>
                {
                    using var scope = NewDisposeScope();
                    BiasGradient(gradient);
                    var dense = scratch.Expand(weight, compute);
                    if (compute == type)
                        return InputGradient(gradient, dense, accumulateInto);
                    var dx = gradient.to(compute).matmul(dense).to(type);
                    return accumulateInto is null ? dx.MoveToOuterDisposeScope() : accumulateInto.add_(dx);
                }
        );
    }

    public void Dispose()
    {
        weight.Dispose();
        scratch.Dispose();
    }
}
