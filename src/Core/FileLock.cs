using System;
using System.Diagnostics;
using System.IO;
using System.Threading;

namespace Memopt.Core;

/// <summary>A file that one process has open at a time, to keep others out. The lock ends with the process, however
/// that ends; the file stays.</summary>
internal static partial class FileLock
{
    private const int ShortestWait = 1,
        LongestWait = 50,
        PollMilliseconds = 200;

    /// <summary>Takes the lock; null while another process has it.</summary>
    /// <exception cref="IOException">The file cannot be opened for another reason.</exception>
    public static FileStream? TryTake(string path)
    {
        try
        {
            return Open(path);
        }
        catch (IOException e) when (IsHeld(e))
        {
            return null;
        }
    }

    /// <summary>Takes the lock; waits for the process that has it. Null when that process still has it.</summary>
    /// <param name="path">The file.</param>
    /// <param name="patience">How long at most.</param>
    /// <param name="stop">Ends the wait.</param>
    /// <exception cref="IOException">The file cannot be opened for another reason.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public static FileStream? TryTake(string path, TimeSpan patience, CancellationToken stop = default)
    {
        var waited = Stopwatch.StartNew();
        for (var wait = ShortestWait; ; wait = Math.Min(wait * 2, LongestWait))
        {
            stop.ThrowIfCancellationRequested();
            if (TryTake(path) is { } taken)
                return taken;
            if (waited.Elapsed >= patience)
                return null;
            stop.WaitHandle.WaitOne(wait);
        }
    }

    /// <summary>Takes the lock; waits for the process that has it.</summary>
    /// <param name="path">The file.</param>
    /// <param name="patience">How long at most.</param>
    /// <exception cref="IOException">The other process still has it, or the file cannot be opened.</exception>
    public static FileStream Take(string path, TimeSpan patience) => TryTake(path, patience) ?? Open(path);

    /// <summary>Takes the lock; waits for the process that has it, however long.</summary>
    /// <param name="path">The file.</param>
    /// <param name="waiting">Called once when it has to wait.</param>
    /// <param name="stop">Ends the wait.</param>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public static FileStream Take(string path, Action waiting, CancellationToken stop)
    {
        for (var reported = false; ; reported = true)
        {
            if (TryTake(path) is { } taken)
                return taken;
            if (!reported)
                waiting();
            if (stop.WaitHandle.WaitOne(PollMilliseconds))
                stop.ThrowIfCancellationRequested();
        }
    }

    private static FileStream Open(string path) =>
        new(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);

    /// <summary>EWOULDBLOCK on Linux and on macOS; a sharing violation on Windows.</summary>
    private static bool IsHeld(IOException e) => e.HResult is 11 or 35 or unchecked((int)0x80070020);
}
