namespace Memopt.Trainer.Native;

/// <summary>Pinned host memory, and the event that its last copy to or from the device is done. Who disposes it has
/// waited for that event.</summary>
internal sealed class PinnedBuffer(long bytes) : IDisposable
{
    public long Bytes => bytes;

    public nint Address { get; } = Cuda.AllocatePinned(bytes);

    /// <summary>Whoever queues a copy records it after that; nothing is waited for before the first.</summary>
    public Cuda.Event Copied { get; } = new();

    public void Dispose()
    {
        Cuda.FreePinned(Address);
        Copied.Dispose();
    }
}
