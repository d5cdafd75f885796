using System;
using System.Diagnostics;
using System.IO;
using System.Threading;

namespace Memopt.Build;

/// <summary>A file that one build at a time holds.</summary>
internal static class BuildLock
{
    /// <summary>Waits for the file, five minutes at most; null when it cannot be had.</summary>
    public static FileStream? Acquire(string file)
    {
        for (var waited = Stopwatch.StartNew(); waited.Elapsed.TotalMinutes < 5; Thread.Sleep(100))
        {
            try
            {
                return new FileStream(file, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException)
            {
                // Held by another project's build.
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
        }
        return null;
    }
}
