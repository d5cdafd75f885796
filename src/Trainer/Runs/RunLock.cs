using Memopt.Core;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Runs;

/// <summary>The lock on a run's folder.</summary>
internal static class RunLock
{
    /// <summary>Two processes must not write one run's checkpoints: the second waits for the first, and then finds what
    /// that has left.</summary>
    public static FileStream Acquire(string output, ITrainingObserver observer, CancellationToken stop)
    {
        var path = Path.Combine(output, "run.lock");
        for (var told = false; ; told = true)
        {
            try
            {
                Directory.CreateDirectory(output);
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            // EWOULDBLOCK on Linux and macOS; a sharing violation
            catch (IOException e) when (e.HResult is 11 or 35 or unchecked((int)0x80070020))
            {
                if (!told)
                    observer.Stage(
                        StageNames.Waiting,
                        "this config is being trained by another process; what it leaves is taken up"
                    );
                if (stop.WaitHandle.WaitOne(200))
                    stop.ThrowIfCancellationRequested();
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault(
                    $"{output} cannot be written.",
                    found: e.Message,
                    next: "run from a folder that can be written; checkpoints and the result go beside the config"
                )
                {
                    Failed = true,
                };
            }
        }
    }
}
