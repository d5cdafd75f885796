namespace Memopt.Hub;

/// <summary>A fault that passes: the next attempt may do better.</summary>
internal sealed class TransientException(string message, TimeSpan? retryAfter = null, Exception? inner = null)
    : Exception(message, inner)
{
    /// <summary>How long the server asks to be left alone.</summary>
    public TimeSpan? RetryAfter { get; } = retryAfter;
}
