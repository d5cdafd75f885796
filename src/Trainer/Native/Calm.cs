using System.Runtime;

namespace Memopt.Trainer.Native;

/// <summary>
/// No garbage collection while libtorch is at work. TorchSharp hands a number (Scalar) to native code by its address and holds it no longer;
/// a collection at that moment, begun by any thread, frees it under the reader. Between two steps the collector may do what it has put off.
/// </summary>
internal sealed class Calm : IDisposable
{
    // A step allocates one or two megabytes of small objects; what is more than this ends the calm, and the next step begins a new one.
    private const long Room = 64 << 20;

    private long since;

    public Calm() => Begin();

    /// <summary>Nothing native is under way: collects when enough has gathered.</summary>
    public void Between()
    {
        if (GCSettings.LatencyMode != GCLatencyMode.NoGCRegion || GC.GetTotalAllocatedBytes() - since >= Room / 2)
            Collect();
    }

    /// <summary>Nothing native is under way: collects, so that tensors that nobody holds any more are freed.</summary>
    public void Collect()
    {
        Dispose();
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Begin();
    }

    public void Dispose()
    {
        try
        {
            if (GCSettings.LatencyMode == GCLatencyMode.NoGCRegion)
                GC.EndNoGCRegion();
        }
        catch (InvalidOperationException)
        {
            // More was allocated than there was room for: the collector has ended it itself.
        }
    }

    private void Begin()
    {
        try
        {
            if (GCSettings.LatencyMode != GCLatencyMode.NoGCRegion)
                GC.TryStartNoGCRegion(Room);
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentOutOfRangeException)
        {
            // Not to be had in this process, or had already: then collections come when they come.
        }
        since = GC.GetTotalAllocatedBytes();
    }
}
