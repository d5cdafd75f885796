using System.Runtime.InteropServices;

namespace Memopt.Trainer.Native;

/// <summary>Environment variables as native libraries read them: .NET keeps a copy of its own.</summary>
internal static partial class NativeVariables
{
    /// <summary>Sets a variable for libraries that are loaded later. Does nothing on Windows.</summary>
    public static void Set(string name, string value)
    {
        if (!OperatingSystem.IsWindows())
            _ = setenv(name, value, overwrite: 1);
    }

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int setenv(string name, string value, int overwrite);
}
