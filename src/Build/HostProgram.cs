using System;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;

namespace Memopt.Build;

/// <summary>Programs of this machine by their full paths.</summary>
internal static class HostProgram
{
    /// <summary>The dotnet that runs the build, or else the first of PATH.</summary>
    public static string Dotnet =>
        Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } host ? host : OnPath("dotnet");

    /// <summary>The full path of a program. By its name alone, one in the current folder would be taken
    /// first.</summary>
    public static string OnPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(Path.PathSeparator)
            .Where(folder => folder.Length > 0 && Path.IsPathRooted(folder))
            .Select(folder =>
                Path.Combine(folder, RuntimeInformation.IsOSPlatform(OSPlatform.Windows) ? program + ".exe" : program)
            )
            .FirstOrDefault(File.Exists)
        ?? throw new FileNotFoundException($"{program} is in no folder of PATH.");
}
