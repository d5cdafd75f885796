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
        try
        {
            Directory.CreateDirectory(output);
            return FileLock.Take(
                Path.Combine(output, "run.lock"),
                () =>
                    observer.Stage(
                        StageNames.Waiting,
                        "this config is being trained by another process; this run then resumes from its checkpoint"
                    ),
                stop
            );
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
