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

    /// <summary>As in the safetensors: <c>model.layers.0.self_attn.q_proj.weight</c>.</summary>
    public string Name { get; } = name;

    public Tensor Value { get; private set; } = value.DetachFromDisposeScope();

    /// <summary>Sum of gradients since the last optimizer step, fp32, shaped as <see cref="Value"/>; null while
    /// frozen.</summary>
    public Tensor? Grad { get; private set; }

    public bool RequiresGrad => Grad is not null;

    /// <summary>The value in the type of a computation; the caller leaves it alone, and a dispose scope frees what had
    /// to be converted.</summary>
    public Tensor Cast(ScalarType type) =>
        copy?.dtype == type ? copy
        : Value.dtype == type ? Value
        : Value.to(type);

    /// <summary>Whether <see cref="Cast"/> has the type at hand, with nothing to convert.</summary>
    public bool HasCast(ScalarType type) => Value.dtype == type || copy?.dtype == type;

    /// <summary>Where the value lies, for one that is not trained.</summary>
    public TensorSlot Slot =>
        new(
            () => Value,
            moved =>
            {
                Value.Dispose();
                Value = moved.DetachFromDisposeScope();
            }
        );

    /// <summary>Moves the value into a slice of the optimizer's flat fp32 buffer.</summary>
    public void MoveTo(Tensor slice)
    {
        slice.copy_(Value);
        Value.Dispose();
        Value = slice.DetachFromDisposeScope();
    }

    /// <summary>Makes it trained.</summary>
    /// <param name="grad">The slice that collects gradients.</param>
    /// <param name="copy">The slice that the optimizer keeps equal to the value, in the compute type; null where the
    /// value itself serves.</param>
    public void BindGradient(Tensor grad, Tensor? copy)
    {
        if (!ReferenceEquals(Grad, grad))
            Grad?.Dispose();
        this.copy?.Dispose();
        (Grad, this.copy) = (grad.DetachFromDisposeScope(), copy?.DetachFromDisposeScope());
    }

    /// <summary>Adds a gradient of the same shape, in any float type.</summary>
    public void Accumulate(Tensor gradient) => Grad?.add_(gradient);

    /// <summary>Adds scale · leftᵀ right, summed in fp32: (N, a), (N, b) for a value of (a, b).</summary>
    public void Accumulate(Tensor left, Tensor right, double scale = 1)
    {
        if (Grad is null)
            return;
        using var scope = NewDisposeScope();
        Grad.add_(Aten.MatmulFp32(left.t(), right), scale);
    }

    public void Dispose()
    {
        Value.Dispose();
        Grad?.Dispose();
        copy?.Dispose();
    }
}
