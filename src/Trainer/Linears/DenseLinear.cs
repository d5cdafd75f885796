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

    public override LinearPass Begin(Tensor x, ForwardContext context) => new Pass(this, x);

    private sealed class Pass(DenseLinear linear, Tensor x) : LinearPass(x)
    {
        public override Tensor Output()
        {
            using var scope = NewDisposeScope();
            return linear.Product(Input, linear.weight.Cast(Input.dtype)).MoveToOuterDisposeScope();
        }

        public override Tensor InputGradient(Tensor gradient, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            return AddProduct(gradient, linear.weight.Cast(gradient.dtype), accumulateInto);
        }

        public override void WeightGradient(Tensor gradient, Tensor input)
        {
            using var scope = NewDisposeScope();
            linear.BiasGradient(gradient);
            if (linear.weight.RequiresGrad)
                linear.weight.Accumulate(gradient, input);
        }
    }
}
