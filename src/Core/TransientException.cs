namespace Memopt.Core;

/// <summary>A transient fault: the same attempt may succeed later with nothing done. Here is what counts as one;
/// a library adds what its own packages throw.</summary>
internal sealed class TransientException(string message, TimeSpan? retryAfter = null, Exception? inner = null)
    : Exception(message, inner)
{
    /// <summary>How long the server asks to be left alone.</summary>
    public TimeSpan? RetryAfter { get; } = retryAfter;

    /// <summary>Whether a fault of a transfer is transient: the network is away or failed on the way, or nothing came
    /// in time. For a transfer only: an <see cref="IOException"/> of the disk is none.</summary>
    public static bool Is(Exception e) =>
        e
            is TransientException
                or HttpRequestException
                or IOException
                or InvalidDataException
                // no connection or answer in time: nobody has cancelled
                or OperationCanceledException { InnerException: TimeoutException };

    /// <summary>Whether the server that answers with a status may answer with another one later: it is busy, restarts,
    /// or is behind a gateway that does not reach it. Not what it never does (501, 505) and not a full disk
    /// (507).</summary>
    public static bool IsStatus(int status) => status is 408 or 425 or 429 or (>= 500 and not (501 or 505 or 507));
}
