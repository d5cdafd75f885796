namespace Memopt.Tracking;

/// <summary>How a run stands. <see cref="Interrupted"/> is what a running one becomes when its process is
/// gone.</summary>
public enum RunStatus
{
    Running,
    Finished,
    Stopped,
    Failed,
    Interrupted,
}
