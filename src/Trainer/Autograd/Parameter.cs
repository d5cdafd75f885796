using Memopt.Trainer.Distributed;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>A weight under its name in the weights file. A trained one is fp32 and collects its gradient; a frozen one
/// is in the compute type.</summary>
internal sealed class Parameter(string name, Tensor value) : IDisposable
{
    private Tensor? copy;

    /// <summary>Shape of what this rank holds of it.</summary>
    public IReadOnlyList<long> Shape { get; } = value.shape;

    /// <summary>What a tensor parallel rank has of the weight; null where it is the whole.</summary>
    public WeightSlice? Slice { get; init; }

    /// <summary>Elements of what this rank holds of it.</summary>
    public long Count => Shape.Aggregate(1L, (a, b) => a * b);

    /// <summary>Shape of the whole weight.</summary>
    public IReadOnlyList<long> WholeShape => Slice?.Shape ?? Shape;

    /// <summary>Elements of the whole weight.</summary>
    public long WholeCount => WholeShape.Aggregate(1L, (a, b) => a * b);

    /// <summary>As in the safetensors: <c>model.layers.0.self_attn.q_proj.weight</c>.</summary>
    public string Name { get; } = name;

    public Tensor Value { get; private set; } = value.DetachFromDisposeScope();

    /// <summary>Sum of gradients since the last optimizer step, fp32, shaped as <see cref="Value"/>; null while
    /// frozen, and outside its unit's backward where gradients are sharded.</summary>
    public Tensor? Grad { get; private set; }

    /// <summary>Whether it is trained.</summary>
    public bool RequiresGrad { get; private set; }

    /// <summary>The value in the type of a computation; the caller leaves it alone, and a dispose scope frees what had
    /// to be converted.</summary>
    public Tensor Cast(ScalarType type) =>
        copy?.dtype == type ? copy
        : Value.dtype == type ? Value
        : Value.to(type);

    /// <summary>Whether <see cref="Cast"/> has the type at hand, with nothing to convert.</summary>
    public bool HasCast(ScalarType type) => Value.dtype == type || copy?.dtype == type;

    /// <summary>Makes the parameter trained, its value in the compute type where it lies.</summary>
    public void Train() => RequiresGrad = true;

    /// <summary>Where the value lies, for one that a memory pass moves.</summary>
    public TensorSlot Slot =>
        new(
            () => Value,
            moved =>
            {
                Value.Dispose();
                Value = moved.DetachFromDisposeScope();
            }
        );

    /// <summary>Moves the value into a slice of one of the optimizer's flat arrays, in the slice's type, and makes the
    /// parameter trained.</summary>
    public void MoveTo(Tensor slice)
    {
        slice.copy_(Value);
        Bind(slice);
    }

    /// <summary>Makes a slice of the optimizer's, which holds the value already, the value.</summary>
    public void Bind(Tensor slice)
    {
        Value.Dispose();
        Value = slice.DetachFromDisposeScope();
        RequiresGrad = true;
    }

    /// <summary>Sets the slice that collects gradients; null where none is collected now.</summary>
    public void BindGradient(Tensor? grad)
    {
        if (!ReferenceEquals(Grad, grad))
            Grad?.Dispose();
        Grad = grad?.DetachFromDisposeScope();
    }

    /// <summary>Sets the slice that the optimizer keeps equal to the value, in the compute type.</summary>
    public void BindCopy(Tensor copy)
    {
        this.copy?.Dispose();
        this.copy = copy.DetachFromDisposeScope();
    }

    /// <summary>Adds a gradient of the same shape, in any float type.</summary>
    public void Accumulate(Tensor gradient)
    {
        if (RequiresGrad)
            Grad!.add_(gradient);
    }

    /// <summary>Adds scale · leftᵀ right, summed in fp32: (N, a), (N, b) for a value of (a, b).</summary>
    public void Accumulate(Tensor left, Tensor right, double scale = 1)
    {
        if (!RequiresGrad)
            return;
        using var scope = NewDisposeScope();
        Grad!.add_(Aten.MatmulFp32(left.t(), right), scale);
    }

    public void Dispose()
    {
        Value.Dispose();
        Grad?.Dispose();
        copy?.Dispose();
    }
}
