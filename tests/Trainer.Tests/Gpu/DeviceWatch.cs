using System.Runtime.InteropServices;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Reads the memory of the first GPU every few milliseconds through NVML, as nvidia-smi does: it sees every
/// byte that any program holds.</summary>
internal sealed partial class DeviceWatch : IDisposable
{
    private readonly CancellationTokenSource end = new();
    private readonly nint device;
    private readonly Thread thread;
    private readonly Func<long> others;
    private readonly long start;
    private long peak,
        samples;

    /// <param name="others">Bytes that others have taken since the watch began.</param>
    public DeviceWatch(Func<long>? others = null)
    {
        this.others = others ?? (() => 0);
        Check(nvmlInit_v2());
        Check(nvmlDeviceGetHandleByIndex_v2(0, out device));
        start = peak = Used();
        thread = new(Watch) { IsBackground = true };
        thread.Start();
    }

    /// <summary>Most bytes seen beyond those of the beginning and of others.</summary>
    public long Peak => Interlocked.Read(ref peak) - start;

    /// <summary>Readings so far.</summary>
    public long Samples => Interlocked.Read(ref samples);

    public void Dispose()
    {
        end.Cancel();
        thread.Join();
        end.Dispose();
        _ = nvmlShutdown();
    }

    private void Watch()
    {
        while (!end.Token.WaitHandle.WaitOne(5))
        {
            Interlocked.Exchange(ref peak, Math.Max(peak, Used()));
            Interlocked.Increment(ref samples);
        }
    }

    private long Used()
    {
        Check(nvmlDeviceGetMemoryInfo(device, out var memory));
        return (long)memory.Used - others(); // after the reading: others count themselves before they take
    }

    private static void Check(int code)
    {
        if (code != 0)
            throw new ExternalException($"NVML error {code}");
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct MemoryInfo
    {
        public ulong Total,
            Free,
            Used;
    }

    private const string Library = "libnvidia-ml.so.1";

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int nvmlInit_v2();

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int nvmlShutdown();

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int nvmlDeviceGetHandleByIndex_v2(uint index, out nint device);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int nvmlDeviceGetMemoryInfo(nint device, out MemoryInfo memory);
}
