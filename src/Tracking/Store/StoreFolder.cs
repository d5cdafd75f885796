using LiteDB;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>The folder of a store: the spools and texts of its runs, and the lock for all that is made of
/// them.</summary>
internal sealed class StoreFolder(string path, TimeProvider clock)
{
    private static readonly TimeSpan patience = TimeSpan.FromSeconds(60);

    private readonly string gate = System.IO.Path.Combine(path, "runs.lock");

    public string Path => path;

    public Spool Spool { get; } = new(path, clock);

    public RunLogs Logs { get; } = new(System.IO.Path.Combine(path, "logs"));

    /// <summary>Waits for the lock of the store. LiteDB does not lock out a second process on Linux, so this file does.
    /// Null when the folder cannot be written.</summary>
    public FileStream? Hold(CancellationToken stop = default)
    {
        if (!Directory.Exists(path))
            Guard(() => Directory.CreateDirectory(path));
        try
        {
            return FileLock.TryTake(gate, patience, stop)
                ?? throw new TrackingException($"The run store cannot be locked: {gate}: another process has it.");
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
        catch (IOException e) when (e.HResult is 30 or unchecked((int)0x80070013)) // EROFS; write-protected
        {
            return null;
        }
        catch (IOException e)
        {
            throw new TrackingException($"The run store cannot be locked: {gate}: {e.Message}", e);
        }
    }

    /// <summary>Makes a <see cref="TrackingException"/> of what the disk or LiteDB throws.</summary>
    public T Guard<T>(Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or LiteException)
        {
            throw new TrackingException($"The run store at {path} cannot be used: {e.Message}", e);
        }
    }
}
