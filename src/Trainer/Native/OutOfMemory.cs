using System.Runtime.InteropServices;

namespace Memopt.Trainer.Native;

/// <summary>How a lack of memory shows: libtorch, CUDA's libraries and .NET each have their own words.</summary>
internal static class OutOfMemory
{
    private static readonly string[] words =
    [
        "out of memory",
        "OUT_OF_MEMORY",
        "ALLOC_FAILED", // libtorch's CUDA allocator, the driver, cuBLAS and cuDNN
        "can't allocate memory",
        "not enough memory", // libtorch's CPU allocator
    ];

    /// <summary>The exception of all ranks when memory ran out on one.</summary>
    /// <param name="rank">Where memory ran out.</param>
    /// <param name="why">The message there, if this is that rank.</param>
    public static Exception OnRank(int rank, string? why) =>
        new InsufficientMemoryException($"memory ran out on rank {rank}{(why is null ? "" : $": {why}")}");

    /// <summary>Whether an exception says that memory ran out, on the device or the host.</summary>
    public static bool Is(Exception e) =>
        e is OutOfMemoryException
        || (e is ExternalException && words.Any(word => e.Message.Contains(word, StringComparison.OrdinalIgnoreCase)))
        || (
            e is AggregateException or System.Reflection.TargetInvocationException
            && e.InnerException is { } inner
            && Is(inner)
        );
}
