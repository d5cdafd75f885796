namespace Memopt.Tracking;

/// <summary>
/// The record of runs. Several processes may write and query one store at once; what a call has returned from survives a kill.
/// </summary>
public interface IRunStore : IDisposable
{
    /// <summary>
    /// Begins a run, or goes on with the one of the same id: rows of steps after <paramref name="fromStep"/> are dropped, since they will be made again.
    /// The run counts as alive until <see cref="IRunWriter.End"/> or the end of this process.
    /// </summary>
    IRunWriter Begin(RunStart start, int fromStep = 0);

    /// <summary>Runs that match, newest first, without their step rows. A run whose process is gone shows as interrupted.</summary>
    IReadOnlyList<Run> Find(RunQuery query);

    /// <summary>One run by id or unique prefix of it; null when there is none. Throws <see cref="TrackingException"/> when the prefix is ambiguous.</summary>
    Run? Get(string idOrPrefix);

    /// <summary>Step rows of a run in order, one per step (the last written wins).</summary>
    IReadOnlyList<StepRow> Steps(string id);

    /// <summary>Evaluations of a run in order.</summary>
    IReadOnlyList<EvalRow> Evals(string id);

    /// <summary>Events of a run in order, those before a resume included.</summary>
    IReadOnlyList<RunEvent> Events(string id);
}

/// <summary>Writes one run. Thread-safe; every call is durable against a kill of the process when it returns.</summary>
public interface IRunWriter : IDisposable
{
    void Append(IReadOnlyList<StepRow> rows);
    void Append(EvalRow row);
    void Append(RunEvent happened);
    void Link(ArtifactLink artifact);
    void End(Outcome outcome);
}

/// <summary>The store or an artifact cannot be read or written; the message says which file and why.</summary>
public sealed class TrackingException(string message, Exception? inner = null) : Exception(message, inner);
