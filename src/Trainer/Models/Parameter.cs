using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>A weight under its name in the weights file. A trained one is fp32 and collects its gradient; a frozen one is in the compute type.</summary>
public sealed class Parameter(string name, Tensor value) : IDisposable
{
    /// <summary>As in the safetensors: <c>model.layers.0.self_attn.q_proj.weight</c>.</summary>
    public string Name { get; } = name;

    public Tensor Value { get; private set; } = value.DetachFromDisposeScope();

    /// <summary>Sum of gradients since the last optimizer step, fp32, shaped as <see cref="Value"/>; null while frozen.</summary>
    public Tensor? Grad { get; private set; }

    public bool Trained => Grad is not null;

    /// <summary>The value in the type of a computation: itself where it has that type already (then the caller must not dispose it).</summary>
    public Tensor As(ScalarType type) => Value.dtype == type ? Value.alias() : Value.to(type);

    /// <summary>Moves the value into a slice of the optimizer's flat fp32 buffer and collects gradients in another.</summary>
    public void Train(Tensor value, Tensor grad)
    {
        value.copy_(Value);
        Value.Dispose();
        Value = value.DetachFromDisposeScope();
        Grad = grad.DetachFromDisposeScope();
    }

    /// <summary>Adds a gradient of the same shape, in any float type.</summary>
    public void Accumulate(Tensor gradient) => Grad?.add_(gradient);

    public void Dispose()
    {
        Value.Dispose();
        Grad?.Dispose();
    }
}
