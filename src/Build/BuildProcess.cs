using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;

namespace Memopt.Build;

/// <summary>The processes whose end is the end of this build.</summary>
internal static class BuildProcess
{
    /// <summary>Identifiers, with a comma between: this process, and the build that started it if this is a node of
    /// that build alone. Such a node (<c>/nodeReuse:false</c>) can outlive a build that was killed: it then waits for
    /// its task and cancels nothing. A node that builds share was started by an earlier one, which is not watched.
    /// Without <c>/proc</c> the parent is not known.</summary>
    public static string Ids()
    {
        var ids = new List<int> { Process.GetCurrentProcess().Id };
        try
        {
            var arguments = File.ReadAllText("/proc/self/cmdline").Split('\0');
            if (IsNodeOfOneBuild(arguments) && Parent(File.ReadAllText("/proc/self/stat")) is > 1 and var parent)
                ids.Add(parent);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Another operating system.
        }
        return string.Join(",", ids);
    }

    private static bool IsNodeOfOneBuild(string[] arguments) =>
        arguments.Any(argument => argument.StartsWith("/nodemode:", StringComparison.OrdinalIgnoreCase))
        && arguments.Contains("/nodeReuse:false", StringComparer.OrdinalIgnoreCase);

    /// <summary>The fourth field of <c>stat</c>; the second, the program's name, stands in parentheses and may hold
    /// any character.</summary>
    private static int Parent(string stat) => int.Parse(stat.Substring(stat.LastIndexOf(')') + 2).Split(' ')[1]);
}
