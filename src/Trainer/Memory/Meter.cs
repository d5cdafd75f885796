using System.Diagnostics;
using System.Runtime.InteropServices;
using Memopt.Trainer.Models;

namespace Memopt.Trainer.Memory;

/// <summary>Bytes of live tensors: on a CPU what the C library's heap has in use (libtorch allocates there, .NET does
/// not), on a GPU what the device has handed out. The peak is sampled between layers, where it lies.
/// </summary>
/// <param name="device">Bytes in use; null reads the heap.</param>
/// <param name="limit">Bytes that may be in use now; a sample above is refused as an allocator would refuse it. Null,
/// or a null result, allows all.</param>
internal sealed class Meter(Func<long>? device = null, Func<long?>? limit = null)
{
    /// <summary>Bytes now.</summary>
    public long Now() => device?.Invoke() ?? Heap();

    /// <summary>Highest sample since <see cref="Reset"/>.</summary>
    public long Peak { get; private set; }

    /// <summary>Highest sample of the whole run.</summary>
    public long RunPeak { get; private set; }

    /// <summary>Whether layers are sampled to find the peaks; a sample costs time.</summary>
    public bool Sampling { get; set; }

    /// <summary>Whether every sample counts, not only those that look for a peak.</summary>
    public bool Limited => limit is not null;

    /// <summary>Bytes that may be in use now; null is all.</summary>
    public long? Limit => limit?.Invoke();

    /// <exception cref="InsufficientMemoryException">More is in use than may be.</exception>
    public long Sample()
    {
        var now = Now();
        if (Limit is { } most && now > most)
            throw new InsufficientMemoryException($"out of memory: {now:N0} bytes in use of {most:N0} that may be");
        Peak = Math.Max(Peak, now);
        RunPeak = Math.Max(RunPeak, now);
        return now;
    }

    public void Reset() => Peak = 0;

    /// <summary>A layer with a sample at the end of its forward and of its backward.</summary>
    public LayerForward Around(LayerForward run) =>
        (layer, x, context) =>
        {
            var result = run(layer, x, context);
            if (!Sampling && !Limited)
                return result;
            Sample();
            return result.Backward is not { } backward
                ? result
                : result with
                {
                    Backward = (gradient, accumulateInto) =>
                    {
                        var g = backward(gradient, accumulateInto);
                        Sample();
                        return g;
                    },
                };
        };

    private static long Heap()
    {
        if (OperatingSystem.IsLinux())
        {
            try
            {
                var info = mallinfo2();
                return (long)(info.uordblks + info.hblkhd);
            }
            catch (EntryPointNotFoundException)
            {
                // glibc before 2.33 or another C library: the process's memory is the nearest figure.
            }
        }
        using var process = Process.GetCurrentProcess();
        return process.WorkingSet64;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct MallocInfo
    {
        public nuint arena,
            ordblks,
            smblks,
            hblks,
            hblkhd,
            usmblks,
            fsmblks,
            uordblks,
            fordblks,
            keepcost;
    }

    [DllImport("libc")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern MallocInfo mallinfo2();
}
