using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Holds tensors between forward and backward, as pack and unpack hooks of saved tensors do in
/// <c>torch.autograd.graph</c>.</summary>
internal interface ISavedTensors
{
    /// <summary>Takes ownership of a tensor.</summary>
    /// <param name="tensor">May be read, and not changed, until the next layer keeps something.</param>
    /// <param name="layer">The layer whose backward unpacks it.</param>
    ISavedTensor Pack(Tensor tensor, int layer);
}

/// <summary>A packed tensor. Disposing it frees a tensor that was not unpacked.</summary>
internal interface ISavedTensor : IDisposable
{
    /// <summary>Returns the tensor, once; the scope owns it from then on.</summary>
    Tensor Unpack(DisposeScope owner);
}
