using System.Runtime;

namespace Memopt.Trainer.Native;

/// <summary>No garbage collection while libtorch computes. TorchSharp passes a number (Scalar) to native code by its
/// address and does not keep it alive: a collection at that moment, on any thread, frees the number while native code
/// reads it. The collector may run between two steps. A process has one such scope at a time: threads that train or
/// answer take turns, a step or a token each.</summary>
internal sealed class NoGcScope : IDisposable
{
    // A step allocates one or two megabytes of small objects. More than this ends the region, and the next step begins
    // a new one.
    private const long RegionBytes = 64 << 20;

    private static readonly Lock turn = new();
    private long since;

    public NoGcScope()
    {
        turn.Enter();
        Begin();
    }

    /// <summary>Called between two steps: another thread may take its turn; collects when enough garbage has
    /// gathered.</summary>
    public void Yield()
    {
        turn.Exit();
        turn.Enter();
        if (
            GCSettings.LatencyMode != GCLatencyMode.NoGCRegion
            || GC.GetTotalAllocatedBytes() - since >= RegionBytes / 2
        )
            Collect();
    }

    /// <summary>Runs a caller's code, which may wait for another thread's turn, outside the scope.</summary>
    public void RunOutside(Action action)
    {
        turn.Exit();
        try
        {
            action();
        }
        finally
        {
            turn.Enter();
            Begin();
        }
    }

    /// <summary>Called between two steps: collects, so that tensors that nobody holds any more are freed.</summary>
    public void Collect()
    {
        End();
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Begin();
    }

    public void Dispose()
    {
        End();
        turn.Exit();
    }

    private static void End()
    {
        try
        {
            if (GCSettings.LatencyMode == GCLatencyMode.NoGCRegion)
                GC.EndNoGCRegion();
        }
        catch (InvalidOperationException)
        {
            // More was allocated than the region allows: the collector has ended it itself.
        }
    }

    private void Begin()
    {
        try
        {
            if (GCSettings.LatencyMode != GCLatencyMode.NoGCRegion)
                GC.TryStartNoGCRegion(RegionBytes);
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentOutOfRangeException)
        {
            // The process has such a region already, or cannot have one: collections then run when the collector wants.
        }
        since = GC.GetTotalAllocatedBytes();
    }
}
