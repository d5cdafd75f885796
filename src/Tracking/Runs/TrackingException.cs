namespace Memopt.Tracking;

/// <summary>The store or an artifact cannot be read or written; the message says which file and why.</summary>
public class TrackingException(string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>The next command that fixes the fault; null where none does.</summary>
    public string? Next { get; init; }

    /// <summary>False when what was named is wrong, an id, a name, a place or a file; true when it was in order and
    /// could not be read or written.</summary>
    public bool Failed { get; init; } = true;

    /// <summary>Whether the same may succeed later with nothing done: the network is away, or the service
    /// busy.</summary>
    public bool IsTransient { get; init; }
}
