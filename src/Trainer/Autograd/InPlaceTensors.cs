using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Leaves tensors where they are.</summary>
internal sealed class InPlaceTensors : ISavedTensors
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
