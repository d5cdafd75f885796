using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>A frozen linear kept in 4 bits. The weight is expanded for the products of forward and backward, in
/// memory that all of the model's 4-bit linears share.</summary>
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

    public override LinearPass Begin(Tensor x, ForwardContext context) => new Pass(this, x);

    private Tensor Expand() => scratch.Expand(weight, compute);

    public void Dispose()
    {
        weight.Dispose();
        scratch.Dispose();
    }

    private sealed class Pass(Nf4Linear linear, Tensor x) : LinearPass(x)
    {
        public override Tensor Output()
        {
            using var scope = NewDisposeScope();
            return linear.Product(Input.to(linear.compute), linear.Expand()).to(Input.dtype).MoveToOuterDisposeScope();
        }

        public override Tensor InputGradient(Tensor gradient, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            var dense = linear.Expand();
            if (linear.compute == gradient.dtype)
                return AddProduct(gradient, dense, accumulateInto);
            var dx = gradient.to(linear.compute).matmul(dense).to(gradient.dtype);
            return accumulateInto is null ? dx.MoveToOuterDisposeScope() : accumulateInto.add_(dx);
        }

        public override void WeightGradient(Tensor gradient, Tensor input)
        {
            using var scope = NewDisposeScope();
            linear.BiasGradient(gradient);
        }
    }
}
