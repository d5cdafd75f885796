using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Kernels;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>y = x Wᵀ + b. What W is kept in, and whether something is added to the product, is the
/// subclass's.</summary>
internal abstract class Linear(string name, long inputs, long outputs, Parameter? bias)
{
    /// <summary>Module name as in the weights file, without <c>.weight</c>.</summary>
    public string Name { get; } = name;

    public long InFeatures { get; } = inputs;

    public long OutFeatures { get; } = outputs;

    public Parameter? bias { get; } = bias;

    /// <summary>What a tensor parallel rank has of W; null where it is the whole. A linear with some of the inputs
    /// gives a part of the output without the bias; the block that it ends adds up the parts.</summary>
    public WeightSlice? Slice { get; init; }

    /// <summary>Outputs and inputs of the whole linear.</summary>
    public IReadOnlyList<long> WholeShape => Slice?.Shape ?? [OutFeatures, InFeatures];

    /// <summary>(N, In) → (N, Out).</summary>
    public ForwardResult forward(Tensor x, ForwardContext context)
    {
        using var scope = NewDisposeScope();
        var pass = Begin(x, context);
        var y = pass.Output().MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(y, null);
        scope.MoveAllOut();
        return new(y, pass.Backward);
    }

    /// <summary>Begins a forward pass over (N, In) whose output and backward the caller asks for.</summary>
    public abstract LinearPass Begin(Tensor x, ForwardContext context);

    /// <summary>W in a float type, (Out, In); the caller disposes it.</summary>
    public abstract Tensor Dense(ScalarType type);

    /// <summary>Parameters in the order of the weights file.</summary>
    public virtual IEnumerable<Parameter> Parameters => bias is null ? [] : [bias];

    /// <summary>How this linear and all its siblings (itself among them), which have the same input, are run.</summary>
    public virtual LinearGroup GroupWith(Linear[] siblings) => new(siblings);

    /// <summary>What is large and never changes, and so may lie elsewhere between uses.</summary>
    public virtual IEnumerable<TensorSlot> Frozen => [];

    /// <summary>Bytes its frozen weight takes.</summary>
    public abstract long WeightBytes { get; }

    /// <summary>x Wᵀ + b for a weight in the type of x.</summary>
    protected Tensor Product(Tensor x, Tensor weight) =>
        nn.functional.linear(x, weight, Slice is { Dim: 1 } ? null : bias?.Cast(x.dtype));

    /// <summary>gradient · W, added to <paramref name="accumulateInto"/> where given.</summary>
    protected static Tensor AddProduct(Tensor gradient, Tensor weight, Tensor? accumulateInto)
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
