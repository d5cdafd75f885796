using System.Runtime;

namespace Memopt.Trainer.Native;

/// <summary>No garbage collection while libtorch is at work. TorchSharp hands a number (Scalar) to native code by its
/// address and holds it no longer; a collection at that moment, begun by any thread, frees it under the reader. Between
/// two steps the collector may do what it has put off. A process has one calm at a time: threads that train or answer
/// take turns, a step or a token each.
/// </summary>
internal sealed class NoGcScope : IDisposable
{
    // A step allocates one or two megabytes of small objects; what is more than this ends the calm, and the next step
    // begins a new one.
    private const long Room = 64 << 20;

    private static readonly Lock turn = new();
    private long since;

    public NoGcScope()
    {
        turn.Enter();
        Begin();
    }

    /// <summary>Nothing native is under way: another thread may have its turn; collects when enough has
    /// gathered.</summary>
    public void Yield()
    {
        turn.Exit();
        turn.Enter();
        if (GCSettings.LatencyMode != GCLatencyMode.NoGCRegion || GC.GetTotalAllocatedBytes() - since >= Room / 2)
            Collect();
    }

    /// <summary>Does what is not ours to hurry, which may wait for another thread's turn.</summary>
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

    /// <summary>Nothing native is under way: collects, so that tensors that nobody holds any more are freed.</summary>
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
