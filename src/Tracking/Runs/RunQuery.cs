namespace Memopt.Tracking;

/// <summary>Which runs to find, in which order, and what to tell of each.</summary>
public sealed record RunQuery
{
    /// <summary>A condition, an order, or both: <c>metrics.eval_loss &lt; 0.5 and params.adapter.rank = 16 order by
    /// metrics.eval_loss</c>. MLflow's filters are a part of the language; docs/tracking.md has all of it. Ties, and
    /// everything when no order is given, stand newest first.
    /// </summary>
    public string? Filter { get; init; }
    public string? Experiment { get; init; }
    public RunStatus? Status { get; init; }

    /// <summary>Experiments of which it must be in one, as <see cref="RunStart.Experiment"/> names them; null for
    /// all.</summary>
    public IReadOnlyCollection<string>? Experiments { get; init; }

    /// <summary>Keys of an order, after the filter's own: <c>metrics.loss desc</c>.</summary>
    public IReadOnlyList<string> Order { get; init; } = [];

    /// <summary>Whether to find runs that were deleted, themselves or with their experiment; null for all.</summary>
    public bool? Deleted { get; init; } = false;

    /// <summary>Tags that must all match.</summary>
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();

    /// <summary>Values wanted of each run, spelled as in a filter: status, metrics.loss, min(metrics.loss),
    /// params.adapter.rank.</summary>
    public IReadOnlyList<string> Columns { get; init; } = [];
    public int Limit { get; init; } = 50;

    /// <summary>How long to take in what was recorded since the last query before answering from what is there:
    /// <see cref="RunPage.Waiting"/> says how many runs are not in the answer. The runs that were written last are
    /// taken in first. Null to wait until every run is in.
    /// </summary>
    public TimeSpan? Patience { get; init; }

    /// <summary>Ends the query with an <see cref="OperationCanceledException"/>.</summary>
    public CancellationToken Stop { get; init; }

    /// <summary><see cref="RunPage.Next"/> of the page before. Runs that begin meanwhile neither repeat nor hide
    /// others.</summary>
    public string? Page { get; init; }
}
