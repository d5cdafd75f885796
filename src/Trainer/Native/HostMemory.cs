using System.Diagnostics;

namespace Memopt.Trainer.Native;

/// <summary>Memory of the host and of this process.</summary>
internal static class HostMemory
{
    /// <summary>Bytes that can be taken without swapping, within the container's limit where there is one.</summary>
    public static long FreeBytes()
    {
        if (OperatingSystem.IsLinux() && Field("/proc/meminfo", "MemAvailable:") is { } available)
            return Math.Min(available, ContainerFreeBytes("/sys/fs/cgroup") ?? long.MaxValue);
        var info = GC.GetGCMemoryInfo();
        return info.TotalAvailableMemoryBytes - info.MemoryLoadBytes;
    }

    /// <summary>Bytes of this process that are in memory now.</summary>
    public static long ResidentBytes()
    {
        if (OperatingSystem.IsLinux() && Field("/proc/self/status", "VmRSS:") is { } resident)
            return resident;
        using var process = Process.GetCurrentProcess();
        return process.WorkingSet64;
    }

    /// <summary>The most that <see cref="ResidentBytes"/> has been.</summary>
    public static long PeakResidentBytes()
    {
        if (OperatingSystem.IsLinux() && Field("/proc/self/status", "VmHWM:") is { } peak)
            return peak;
        using var process = Process.GetCurrentProcess();
        return process.PeakWorkingSet64;
    }

    /// <summary>What a control group's limit leaves; null without a limit. Cached file pages count as free: the kernel
    /// gives them up first.</summary>
    internal static long? ContainerFreeBytes(string group)
    {
        foreach (
            var (limit, used) in new[]
            {
                ("memory.max", "memory.current"),
                ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
            }
        )
        {
            var (limitFile, usedFile) = (Path.Combine(group, limit), Path.Combine(group, used));
            if (
                !File.Exists(limitFile)
                || !File.Exists(usedFile)
                || !long.TryParse(File.ReadAllText(limitFile), out var most)
                || !long.TryParse(File.ReadAllText(usedFile), out var now)
            )
                continue; // "max" is no number: no limit
            var stat = Path.Combine(Path.GetDirectoryName(limitFile)!, "memory.stat");
            var cached =
                File.Exists(stat)
                && File.ReadLines(stat)
                    .FirstOrDefault(line => line.StartsWith("inactive_file ", StringComparison.Ordinal))
                    is { } line
                    ? long.Parse(line.Split(' ')[1])
                    : 0;
            return Math.Max(0, most - now + cached);
        }
        return null;
    }

    /// <summary>A line "name  value kB" of a file under /proc, in bytes.</summary>
    private static long? Field(string file, string name) =>
        File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal)) is { } line
            ? long.Parse(line.Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1]) * 1024
            : null;
}
