namespace Memopt.Core;

// Apart from the rest, which Build compiles for .NET Standard, where there is no TimeProvider.
internal static partial class FileLock
{
    /// <summary>Takes the lock; waits for the process that has it, and holds no thread meanwhile.</summary>
    /// <param name="path">The file.</param>
    /// <param name="patience">How long at most; <see cref="Timeout.InfiniteTimeSpan"/> for no limit.</param>
    /// <param name="clock">Measures the wait.</param>
    /// <param name="waiting">Called once when it has to wait.</param>
    /// <param name="stop">Ends the wait.</param>
    /// <exception cref="IOException">The other process still has it, or the file cannot be opened.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public static async Task<FileStream> TakeAsync(
        string path,
        TimeSpan patience,
        TimeProvider clock,
        Action? waiting,
        CancellationToken stop
    )
    {
        var start = clock.GetTimestamp();
        for (var reported = false; ; reported = true)
        {
            if (TryTake(path) is { } taken)
                return taken;
            if (patience != Timeout.InfiniteTimeSpan && clock.GetElapsedTime(start) >= patience)
                throw new IOException($"Another process has {path} open.");
            if (!reported)
                waiting?.Invoke();
            await Task.Delay(TimeSpan.FromMilliseconds(PollMilliseconds), clock, stop).ConfigureAwait(false);
        }
    }
}
