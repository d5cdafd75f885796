using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>The named inputs of a micro-batch on the device. The dispose scope in which it is made frees
/// them.</summary>
internal sealed class DeviceBatch(MicroBatch batch, Device device)
{
    private readonly Dictionary<string, Tensor> tensors = batch.Inputs.ToDictionary(
        input => input.Name,
        input => Scopes.Upload(input.Values, device).view(input.Shape)
    );

    /// <summary>The input of a name.</summary>
    /// <exception cref="KeyNotFoundException">The micro-batch has no such input.</exception>
    public Tensor this[string name] => tensors[name];

    /// <summary>The input of a name, or null.</summary>
    public Tensor? Find(string name) => tensors.GetValueOrDefault(name);
}
