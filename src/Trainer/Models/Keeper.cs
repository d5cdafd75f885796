using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Holds tensors between the way out and the way back.</summary>
public interface IKeeper
{
    /// <summary>Takes a tensor over.</summary>
    /// <param name="tensor">May be read, and not changed, until the next layer keeps something.</param>
    /// <param name="layer">Whose way back will ask for it.</param>
    IKept Keep(Tensor tensor, int layer);
}

/// <summary>A tensor in a keeper's hands. Disposing gives up what was not taken.</summary>
public interface IKept : IDisposable
{
    /// <summary>The tensor, once; from then on the scope's.</summary>
    Tensor Take(DisposeScope owner);
}

/// <summary>Leaves tensors where they are.</summary>
public sealed class InPlace : IKeeper
{
    public static InPlace Keeper { get; } = new();

    public IKept Keep(Tensor tensor, int layer) => new Kept(tensor.DetachFromDisposeScope());

    private sealed class Kept(Tensor tensor) : IKept
    {
        private bool taken;

        public Tensor Take(DisposeScope owner)
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
