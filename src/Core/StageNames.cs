namespace Memopt.Core;

/// <summary>Names of the stages that a command or a training tells of.</summary>
internal static class StageNames
{
    // These are kinds of events too. They lie in the records of runs, so they never change.
    public const string Differs = "differs",
        Download = "download",
        Failed = "failed",
        Memory = "memory",
        Resume = "resume",
        Tracking = "tracking",
        Upload = "upload";

    public const string Adapter = "adapter",
        Again = "again",
        Artifacts = "artifacts",
        Base = "base",
        Best = "best",
        Config = "config",
        Done = "done",
        Evaluation = "evaluation",
        Finished = "finished",
        Model = "model",
        Ranks = "ranks",
        Registered = "registered",
        Registry = "registry",
        Rehearsal = "rehearsal",
        Stopped = "stopped",
        Stopping = "stopping",
        Sweep = "sweep",
        Training = "training",
        Waiting = "waiting",
        Warning = "warning";
}
