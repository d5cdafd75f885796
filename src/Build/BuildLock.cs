using System;
using System.IO;
using Memopt.Core;

namespace Memopt.Build;

/// <summary>A file that one build at a time holds.</summary>
internal static class BuildLock
{
    /// <summary>Waits for the file, five minutes at most; null when it cannot be had.</summary>
    public static FileStream? Acquire(string file)
    {
        try
        {
            return FileLock.TryTake(file, TimeSpan.FromMinutes(5));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
