using Memopt.Trainer.Native;

namespace Memopt.Trainer.Memory;

/// <summary>Where the bytes of layers lie that are streamed to the device. Layers have numbers in the order in which
/// they are added.</summary>
internal abstract class LayerStore : IDisposable
{
    /// <summary>Adds a layer of so many bytes and gives its number.</summary>
    public abstract int Add(long bytes);

    /// <summary>Removes the layer that was added last.</summary>
    public abstract void RemoveLast();

    /// <summary>Writes some bytes of a layer.</summary>
    /// <param name="layer">Its number.</param>
    /// <param name="offset">Where they begin in the layer.</param>
    /// <param name="from">Address of the bytes on the computing device.</param>
    /// <param name="count">How many.</param>
    public abstract void Write(int layer, long offset, nint from, long count);

    /// <summary>Copies a layer to an address on the computing device.</summary>
    /// <param name="layer">Its number.</param>
    /// <param name="to">The address.</param>
    /// <param name="copies">The stream on which the copy is queued; null on a CPU, where it is made.</param>
    public abstract void Read(int layer, nint to, Cuda.Stream? copies);

    /// <summary>Waits until what was written has left the device.</summary>
    public virtual void Flush() { }

    public abstract void Dispose();
}
