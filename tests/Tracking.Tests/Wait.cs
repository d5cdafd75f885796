using System.Diagnostics;

namespace Memopt.Tracking.Tests;

/// <summary>Waiting for another thread or process: as long as a slow machine may need, for what comes about costs no
/// more time than it takes.</summary>
internal static class Wait
{
    public static TimeSpan Patience { get; } = TimeSpan.FromMinutes(10);

    public static void Until(Func<bool> condition)
    {
        for (var waited = Stopwatch.StartNew(); !condition(); Thread.Sleep(5))
            Assert.True(waited.Elapsed < Patience, "did not come about");
    }

    public static void Ended(Process process) => Assert.True(process.WaitForExit(Patience), "a process did not end");
}
