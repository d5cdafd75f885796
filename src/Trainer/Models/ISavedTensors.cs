using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Holds tensors between the way out and the way back.</summary>
public interface ISavedTensors
{
    /// <summary>Takes a tensor over.</summary>
    /// <param name="tensor">May be read, and not changed, until the next layer keeps something.</param>
    /// <param name="layer">Whose way back will ask for it.</param>
    ISavedTensor Pack(Tensor tensor, int layer);
}

/// <summary>A tensor in a keeper's hands. Disposing gives up what was not taken.</summary>
public interface ISavedTensor : IDisposable
{
    /// <summary>The tensor, once; from then on the scope's.</summary>
    Tensor Unpack(DisposeScope owner);
}

/// <summary>Leaves tensors where they are.</summary>
public sealed class InPlaceTensors : ISavedTensors
{
    public static InPlaceTensors Instance { get; } = new();

    public ISavedTensor Pack(Tensor tensor, int layer) => new InPlaceTensor(tensor.DetachFromDisposeScope());

    private sealed class InPlaceTensor(Tensor tensor) : ISavedTensor
    {
        private bool taken;

        public Tensor Unpack(DisposeScope owner)
        {
            taken = true;
            owner.Attach(tensor);
            return tensor;
        }

        public void Dispose()
        {
            if (!taken)
                tensor.Dispose();
        }
    }
}
