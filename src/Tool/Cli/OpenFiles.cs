using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Tool.Cli;

/// <summary>Whether as many files may be open as the tool needs. .NET keeps each assembly open twice, so that a
/// training has some 150 open; where fewer may be, assemblies fail to load at any place. Uses only what is loaded
/// already.
/// </summary>
internal static class OpenFiles
{
    private const int Least = 256;

    /// <summary>The exit code when the limit is too low, which standard error then says; null when it is not. .NET has
    /// raised the soft limit to the hard one.</summary>
    public static int? Refused()
    {
        if (Limit() is not (>= 0 and < Least and var limit))
            return null;
        var text =
            $"error: Too few files may be open at once.\n  found: a limit of {limit}; {Least} are needed\n"
            + "  next:  ulimit -n 1024   (where that is refused, raise the limit of the user or the container)\n";
        try
        {
            using var error = new FileStream(new SafeFileHandle(2, ownsHandle: false), FileAccess.Write, bufferSize: 0);
            error.Write(Encoding.UTF8.GetBytes(text));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            // Closed, or full: the exit code says it.
        }
        return 1;
    }

    private static int Limit()
    {
        const string limits = "/proc/self/limits",
            name = "Max open files";
        if (!File.Exists(limits))
            return -1;
        var text = File.ReadAllText(limits);
        var at = text.IndexOf(name, StringComparison.Ordinal) + name.Length;
        var number = text[at..].TrimStart();
        return int.TryParse(number[..number.IndexOf(' ')], out var limit) ? limit : -1; // "unlimited"
    }
}
