namespace Memopt.Core;

/// <summary>Programs that this process starts: git, python3, the browser.</summary>
public static class ProgramPath
{
    /// <summary>The full path of a program by its name, or null. The system's own search would take one from the
    /// current folder first, and from relative folders in PATH; those may hold a stranger's files.
    /// </summary>
    public static string? Find(string name)
    {
        var file = OperatingSystem.IsWindows() ? name + ".exe" : name;
        return (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(Path.PathSeparator)
            .Where(Path.IsPathFullyQualified)
            .Select(folder => Path.Combine(folder, file))
            .FirstOrDefault(Executable);

        static bool Executable(string path) =>
            File.Exists(path)
            && (
                OperatingSystem.IsWindows()
                || (
                    File.GetUnixFileMode(path)
                    & (UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute)
                ) != 0
            );
    }
}
