namespace Memopt.Trainer.Native;

/// <summary>Pinned buffers of one length in turn, between a file and the device: the host fills or reads one while the
/// copies of the others are on their way.</summary>
internal sealed class PinnedRing : IDisposable
{
    private readonly PinnedBuffer[] buffers;
    private int next;

    /// <param name="count">Of buffers.</param>
    /// <param name="bytes">Of each.</param>
    public PinnedRing(int count, long bytes) =>
        buffers = [.. Enumerable.Range(0, count).Select(_ => new PinnedBuffer(bytes))];

    /// <summary>The buffer that was used longest ago; waits until its last copy is done.</summary>
    public PinnedBuffer Next()
    {
        var buffer = buffers[next];
        next = (next + 1) % buffers.Length;
        buffer.Copied.Wait();
        return buffer;
    }

    public void Dispose()
    {
        foreach (var buffer in buffers)
        {
            buffer.Copied.Wait();
            buffer.Dispose();
        }
    }
}
