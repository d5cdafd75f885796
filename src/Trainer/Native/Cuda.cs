using System.Runtime.InteropServices;

namespace Memopt.Trainer.Native;

/// <summary>The CUDA driver: facts of the card, modules and launches, and the events that order host and
/// device.</summary>
internal static unsafe partial class Cuda
{
    /// <summary>Free and total bytes of the current device, of all programs; null without one.</summary>
    public static (long Free, long Total)? Memory()
    {
        try
        {
            return cuMemGetInfo(out var free, out var total) == 0 ? ((long)free, (long)total) : null;
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return null;
        }
    }

    public static long? FreeBytes() => Memory()?.Free;

    public static long UsedBytes() => Memory() is { } memory ? memory.Total - memory.Free : 0;

    /// <summary>Memory of the first device, also before anything of it is used; null without one.</summary>
    public static long? TotalBytes() =>
        DeviceCount() > 0 && cuDeviceTotalMem(out var bytes, 0) == 0 ? (long)bytes : null;

    /// <summary>Devices the driver answers for; 0 without a driver.</summary>
    public static int DeviceCount()
    {
        try
        {
            return cuInit(0) == 0 && cuDeviceGetCount(out var count) == 0 ? count : 0;
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return 0;
        }
    }

    /// <summary>Name of the first device, or null.</summary>
    public static string? DeviceName()
    {
        var name = new byte[256];
        return DeviceCount() > 0 && cuDeviceGetName(name, name.Length, 0) == 0
            ? System.Text.Encoding.ASCII.GetString(name).TrimEnd('\0')
            : null;
    }

    /// <summary>Compute capability of the first device as one number: 75 for a T4, 90 for an H100; else 0.</summary>
    public static int Capability() =>
        DeviceCount() > 0
        && cuDeviceGetAttribute(out var major, 75, 0) == 0
        && cuDeviceGetAttribute(out var minor, 76, 0) == 0
            ? major * 10 + minor
            : 0;

    /// <summary>CUDA version the driver supports, 13000 for 13.0; 0 without a driver.</summary>
    public static int DriverVersion() => DeviceCount() > 0 && cuDriverGetVersion(out var version) == 0 ? version : 0;

    /// <summary>The driver as its own tools name it, with the newest CUDA that it runs: 535.104.05, CUDA 12.2. Null
    /// without a GPU.</summary>
    public static string? Driver()
    {
        const string file = "/proc/driver/nvidia/version";
        if (DriverVersion() is not (> 0 and var version))
            return null;
        var number = File.Exists(file)
            ? System.Text.RegularExpressions.Regex.Match(File.ReadAllText(file), @"\b\d{3,}\.\d+(\.\d+)?\b").Value
            : "";
        return $"{(number.Length > 0 ? number + ", " : "")}CUDA {version / 1000}.{version % 1000 / 10}";
    }

    /// <summary>Multiprocessors of the first device.</summary>
    public static int Multiprocessors { get; } =
        DeviceCount() > 0 && cuDeviceGetAttribute(out var count, 16, 0) == 0 ? count : 1;

    /// <summary>Loads compiled device code into the context that libtorch uses.</summary>
    internal static nint LoadModule(ReadOnlySpan<byte> image)
    {
        UseContext();
        fixed (byte* bytes = image)
        {
            Check(cuModuleLoadData(out var module, bytes), "cuModuleLoadData");
            return module;
        }
    }

    /// <summary>The driver asks each thread which context it means: the one that libtorch uses.</summary>
    private static void UseContext()
    {
        Check(cuDevicePrimaryCtxRetain(out var context, 0), "cuDevicePrimaryCtxRetain");
        Check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    }

    internal static nint Function(nint module, string name)
    {
        Check(cuModuleGetFunction(out var function, module, name), $"cuModuleGetFunction {name}");
        return function;
    }

    /// <summary>Queues a kernel on libtorch's current stream. Each argument is eight bytes of which the kernel reads as
    /// many as its type has.</summary>
    internal static void Launch(
        nint function,
        (long X, long Y) grid,
        (int X, int Y) block,
        int shared,
        ReadOnlySpan<ulong> arguments
    )
    {
        var pointers = stackalloc void*[arguments.Length];
        fixed (ulong* values = arguments)
        {
            for (var i = 0; i < arguments.Length; i++)
                pointers[i] = values + i;
            Check(
                cuLaunchKernel(
                    function,
                    (uint)grid.X,
                    (uint)grid.Y,
                    1,
                    (uint)block.X,
                    (uint)block.Y,
                    1,
                    (uint)shared,
                    Aten.CurrentStream(),
                    pointers,
                    null
                ),
                "cuLaunchKernel"
            );
        }
    }

    /// <summary>Host memory that the device itself copies from; freed by <see cref="FreePinned"/>.</summary>
    internal static nint AllocatePinned(long bytes)
    {
        UseContext();
        Check(cuMemHostAlloc(out var address, (nuint)bytes, 0), "cuMemHostAlloc");
        return address;
    }

    internal static void FreePinned(nint address) => _ = cuMemFreeHost(address);

    /// <summary>Pins host memory that is there, which the device then copies; until <see cref="Unpin"/>.</summary>
    internal static void Pin(nint address, long bytes)
    {
        UseContext();
        Check(cuMemHostRegister(address, (nuint)bytes, 0), "cuMemHostRegister");
    }

    internal static void Unpin(nint address) => _ = cuMemHostUnregister(address);

    /// <summary>Gives the device back what libtorch's allocator holds and nobody uses. libtorch has no entry point for
    /// that, but its allocator does it before it refuses a request, so this asks for more than any card has. The
    /// allocator refuses without mapping anything because <see cref="AllocatorSettings"/> limits it to the card's size.
    /// Costs a few milliseconds.</summary>
    public static void EmptyCache(TorchSharp.torch.Device device)
    {
        try
        {
            TorchSharp.torch.empty([1L << 46], TorchSharp.torch.uint8, device).Dispose();
        }
        catch (ExternalException)
        {
            // As meant.
        }
    }

    /// <summary>Queues a copy from pinned memory on libtorch's current stream.</summary>
    internal static void CopyToDevice(nint device, nint host, long bytes) =>
        Check(cuMemcpyHtoDAsync(device, host, (nuint)bytes, Aten.CurrentStream()), "cuMemcpyHtoDAsync");

    /// <summary>Queues a copy within the device on libtorch's current stream.</summary>
    internal static void Copy(nint to, nint from, long bytes) =>
        Check(cuMemcpyDtoDAsync(to, from, (nuint)bytes, Aten.CurrentStream()), "cuMemcpyDtoDAsync");

    /// <summary>A queue of copies beside libtorch's own stream.</summary>
    internal sealed class Stream : IDisposable
    {
        private readonly nint handle;

        public Stream()
        {
            UseContext();
            Check(cuStreamCreate(out handle, 1), "cuStreamCreate"); // waits for no other stream unless it is made to
        }

        public void ToDevice(nint device, nint host, long bytes) =>
            Check(cuMemcpyHtoDAsync(device, host, (nuint)bytes, handle), "cuMemcpyHtoDAsync");

        public void ToHost(nint host, nint device, long bytes) =>
            Check(cuMemcpyDtoHAsync(host, device, (nuint)bytes, handle), "cuMemcpyDtoHAsync");

        public void Copy(nint to, nint from, long bytes) =>
            Check(cuMemcpyDtoDAsync(to, from, (nuint)bytes, handle), "cuMemcpyDtoDAsync");

        /// <summary>What is queued from now on begins after the event.</summary>
        public void WaitFor(Event @event) => Check(cuStreamWaitEvent(handle, @event.Handle, 0), "cuStreamWaitEvent");

        /// <summary>What is queued from now on begins after what libtorch's stream has been given so far.</summary>
        public void WaitForCompute(Event scratch)
        {
            scratch.Record();
            WaitFor(scratch);
        }

        public void Record(Event @event) => Check(cuEventRecord(@event.Handle, handle), "cuEventRecord");

        /// <summary>The host waits until all is done.</summary>
        public void Wait() => Check(cuStreamSynchronize(handle), "cuStreamSynchronize");

        public void Dispose()
        {
            _ = cuStreamSynchronize(handle);
            _ = cuStreamDestroy(handle);
        }
    }

    /// <summary>A place in a stream.</summary>
    internal sealed class Event : IDisposable
    {
        public Event()
        {
            UseContext();
            Check(cuEventCreate(out var handle, 2), "cuEventCreate"); // without timing
            Handle = handle;
        }

        public nint Handle { get; }

        /// <summary>In libtorch's current stream.</summary>
        public void Record() => Check(cuEventRecord(Handle, Aten.CurrentStream()), "cuEventRecord");

        /// <summary>The host waits for it; not at all when nothing was recorded.</summary>
        public void Wait() => Check(cuEventSynchronize(Handle), "cuEventSynchronize");

        /// <summary>What libtorch's stream is given from now on begins after it.</summary>
        public void MakeComputeWait() => Check(cuStreamWaitEvent(Aten.CurrentStream(), Handle, 0), "cuStreamWaitEvent");

        public void Dispose() => _ = cuEventDestroy(Handle);
    }

    /// <summary>Device memory outside libtorch's allocator: what another program would have taken.</summary>
    public static nint Take(long bytes)
    {
        UseContext();
        Check(cuMemAlloc(out var address, (nuint)bytes), "cuMemAlloc");
        return address;
    }

    /// <summary>Gives back what <see cref="Take"/> took.</summary>
    public static void GiveBack(nint address) => _ = cuMemFree(address);

    internal static void Check(int code, string call)
    {
        if (code != 0)
            throw new ExternalException(
                $"{call} failed: CUDA error {code}"
                    + $"{(cuGetErrorName(code, out var name) == 0 ? $" ({Marshal.PtrToStringAnsi(name)})" : "")}"
            );
    }

    private const string Library = "libcuda.so.1";

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuInit(uint flags);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuDriverGetVersion(out int version);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuDeviceGetCount(out int count);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuDeviceGetName(byte[] name, int length, int device);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuDeviceGetAttribute(out int value, int attribute, int device);

    [LibraryImport(Library, EntryPoint = "cuDeviceTotalMem_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuDeviceTotalMem(out nuint bytes, int device);

    [LibraryImport(Library, EntryPoint = "cuMemGetInfo_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemGetInfo(out nuint free, out nuint total);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuDevicePrimaryCtxRetain(out nint context, int device);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuCtxSetCurrent(nint context);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuModuleLoadData(out nint module, byte* image);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuModuleGetFunction(out nint function, nint module, string name);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemHostAlloc(out nint address, nuint bytes, uint flags);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemFreeHost(nint address);

    [LibraryImport(Library, EntryPoint = "cuMemcpyHtoDAsync_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemcpyHtoDAsync(nint device, nint host, nuint bytes, nint stream);

    [LibraryImport(Library, EntryPoint = "cuMemHostRegister_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemHostRegister(nint address, nuint bytes, uint flags);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemHostUnregister(nint address);

    [LibraryImport(Library, EntryPoint = "cuMemAlloc_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemAlloc(out nint address, nuint bytes);

    [LibraryImport(Library, EntryPoint = "cuMemFree_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemFree(nint address);

    [LibraryImport(Library, EntryPoint = "cuMemcpyDtoDAsync_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemcpyDtoDAsync(nint to, nint from, nuint bytes, nint stream);

    [LibraryImport(Library, EntryPoint = "cuMemcpyDtoHAsync_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuMemcpyDtoHAsync(nint host, nint device, nuint bytes, nint stream);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuStreamCreate(out nint handle, uint flags);

    [LibraryImport(Library, EntryPoint = "cuStreamDestroy_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuStreamDestroy(nint handle);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuStreamSynchronize(nint handle);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuStreamWaitEvent(nint handle, nint @event, uint flags);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuEventCreate(out nint handle, uint flags);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuEventRecord(nint handle, nint stream);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuEventSynchronize(nint handle);

    [LibraryImport(Library, EntryPoint = "cuEventDestroy_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuEventDestroy(nint handle);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuGetErrorName(int code, out nint name);

    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int cuLaunchKernel(
        nint function,
        uint gridX,
        uint gridY,
        uint gridZ,
        uint blockX,
        uint blockY,
        uint blockZ,
        uint shared,
        nint stream,
        void** arguments,
        void** extra
    );
}
