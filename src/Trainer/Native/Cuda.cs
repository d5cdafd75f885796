using System.Runtime.InteropServices;

namespace Memopt.Trainer.Native;

/// <summary>Facts of the card from the driver, which TorchSharp has no call for.</summary>
public static class Cuda
{
    /// <summary>Free and total bytes of the current device as the operating system sees them; null without one.</summary>
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
        return DeviceCount() > 0 && cuDeviceGetName(name, name.Length, 0) == 0 ? System.Text.Encoding.ASCII.GetString(name).TrimEnd('\0') : null;
    }

    private const string Driver = "libcuda.so.1";

    [DllImport(Driver)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int cuInit(uint flags);

    [DllImport(Driver)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int cuDeviceGetCount(out int count);

    [DllImport(Driver)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int cuDeviceGetName(byte[] name, int length, int device);

    [DllImport(Driver, EntryPoint = "cuMemGetInfo_v2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int cuMemGetInfo(out nuint free, out nuint total);
}
