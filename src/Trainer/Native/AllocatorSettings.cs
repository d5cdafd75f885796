using System.Runtime.InteropServices;

namespace Memopt.Trainer.Native;

/// <summary>
/// The settings that libtorch's CUDA allocator reads from the environment when its libraries are loaded
/// (PyTorch's CUDA notes, "Optimizing memory usage with PYTORCH_CUDA_ALLOC_CONF").
/// </summary>
internal static class AllocatorSettings
{
    private const string Name = "PYTORCH_ALLOC_CONF",
        OldName = "PYTORCH_CUDA_ALLOC_CONF";

    // Segments that grow leave no gaps of odd sizes between batches: reserved memory stays close to used memory.
    private const string Expandable = "expandable_segments:True";

    // The allocator compares a request with this share of the card before it maps anything for the request. Without the
    // limit Cuda.ReleaseCached would map the whole card for a moment. A share of exactly 1 counts as no limit; this one
    // withholds 15 KB of 140 GB.
    private const string Limit = "per_process_memory_fraction:0.9999999";

    /// <summary>The first libtorch whose allocator reads the limit from its settings.</summary>
    private static readonly Version since = new(2, 10);

    /// <summary>Adds to the process's environment what <see cref="Cuda.EmptyCache"/> needs. Call before libtorch is
    /// loaded.</summary>
    /// <param name="libtorch">Its version; null when its folder does not state one.</param>
    public static void Apply(Version? libtorch)
    {
        if (!OperatingSystem.IsLinux() || libtorch < since)
            return;
        // libtorch prefers the new name.
        var name = Read(Name) is null && Read(OldName) is not null ? OldName : Name;
        if (With(Read(name)) is { } settings)
            _ = setenv(name, settings, 1);
    }

    /// <summary>The settings to use, given the user's; null leaves the user's as they are.</summary>
    internal static string? With(string? user) =>
        string.IsNullOrWhiteSpace(user) ? $"{Expandable},{Limit}"
        : user.Contains("per_process_memory_fraction", StringComparison.Ordinal)
        || user.Contains("backend:", StringComparison.Ordinal)
            ? null
        : $"{user.TrimEnd().TrimEnd(',')},{Limit}";

    private static string? Read(string name) => Marshal.PtrToStringUTF8(getenv(name));

    // Native code does not see what .NET sets in its own copy of the environment.
    [DllImport("libc")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int setenv(
        [MarshalAs(UnmanagedType.LPUTF8Str)] string name,
        [MarshalAs(UnmanagedType.LPUTF8Str)] string value,
        int overwrite
    );

    [DllImport("libc")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern nint getenv([MarshalAs(UnmanagedType.LPUTF8Str)] string name);
}
