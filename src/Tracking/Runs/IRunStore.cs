namespace Memopt.Tracking;

/// <summary>The record of runs. Any number of processes may write and query one store at once; what a call has
/// returned from survives a kill.
/// </summary>
public interface IRunStore : IDisposable
{
    /// <summary>Begins a run, or goes on with the one of the same id: points of steps after
    /// <paramref name="fromStep"/> are dropped, since they will be made again; <see cref="int.MaxValue"/> drops none.
    /// The run counts as alive until <see cref="IRunWriter.End"/> or the end of this process. Throws
    /// <see cref="TrackingException"/> when it cannot be recorded; <see cref="BestEffort.BeginBestEffort"/> is for
    /// those who then go on all the same.
    /// </summary>
    IRunWriter Begin(RunStart start, int fromStep = 0);

    /// <summary>Adds to a run that has ended: links, events, tags, metrics. It stays as it ended. Throws
    /// <see cref="TrackingException"/> when there is no such run, or while it is being written.
    /// </summary>
    IRunWriter Amend(string id);

    /// <summary>Runs that match, without their points. Throws <see cref="QueryException"/> when the filter cannot be
    /// read.</summary>
    RunPage Find(RunQuery query);

    /// <summary>One run by id or unique prefix of it; null when there is none. Throws <see cref="TrackingException"/>
    /// when the prefix is ambiguous.</summary>
    Run? Get(string idOrPrefix);

    /// <summary>A metric's points in order of step (of several at one step, as written) from steps after
    /// <paramref name="after"/>, all when it is left out; empty when there are none.</summary>
    IReadOnlyList<Point> Points(string id, string metric, long after = long.MinValue);

    /// <summary>Optimizer steps of a run in order, one per step (the last written wins), from steps after
    /// <paramref name="after"/>.</summary>
    IReadOnlyList<StepRow> Steps(string id, int after = 0);

    /// <summary>Evaluations of a run in order.</summary>
    IReadOnlyList<EvalRow> Evals(string id);

    /// <summary>Events of a run in order, those before a resume included.</summary>
    IReadOnlyList<RunEvent> Events(string id);
}

/// <summary>A filter, an order or a column cannot be read; the message says what was wrong, and <see cref="Position"/>
/// where.</summary>
public sealed class QueryException(string text, int position, string problem)
    : TrackingException($"Character {position + 1} of \"{(text.Length > 300 ? text[..300] + "…" : text)}\": {problem}")
{
    /// <summary>What was to be read.</summary>
    public string Text { get; } = text;

    /// <summary>Where in it, from 0.</summary>
    public int Position { get; } = position;
}
