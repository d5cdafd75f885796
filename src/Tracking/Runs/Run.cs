namespace Memopt.Tracking;

/// <summary>A run as the store knows it: the start, how it stands, its metrics in a few numbers. Points are asked for
/// apart.</summary>
public sealed record Run(RunStart Start, RunStatus Status, DateTimeOffset? Ended, string? Reason)
{
    /// <summary>The prefix that tells an evaluation's metrics from a step's.</summary>
    internal const string EvalPrefix = "eval_";

    /// <summary>The prefix of tags that the store and the server of MLflow's interface keep for themselves.</summary>
    public const string OwnTags = "memopt.";

    /// <summary>The tag that hides a run until it is restored; its value is when.</summary>
    public const string DeletedTag = OwnTags + "deleted";

    /// <summary>Tags that say who made a run: what a client gave beside the tags, and the tag that MLflow's own clients
    /// set.</summary>
    public const string UserTag = OwnTags + "user",
        ClientUserTag = "mlflow.user";

    /// <summary>Who made a run with these tags; null when nothing says so.</summary>
    public static string? UserOf(IReadOnlyDictionary<string, string> tags) =>
        tags.GetValueOrDefault(UserTag) ?? tags.GetValueOrDefault(ClientUserTag);

    /// <summary>Where MLflow's clients find a run's files.</summary>
    public static string ArtifactUri(string experimentId, string id) =>
        $"mlflow-artifacts:/{experimentId}/{id}/artifacts";

    /// <summary>The config's settings by path (adapter.rank), and whatever was added later.</summary>
    public IReadOnlyDictionary<string, string> Params { get; init; } = new Dictionary<string, string>();

    /// <summary>The start's tags with later changes.</summary>
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();
    public IReadOnlyDictionary<string, MetricSummary> Metrics { get; init; } = new Dictionary<string, MetricSummary>();
    public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];
    public IReadOnlyList<ArtifactLink> Artifacts { get; init; } = [];

    /// <summary>Last step recorded.</summary>
    public long Step => Metrics.Count == 0 ? 0 : Metrics.Values.Max(metric => metric.LastStep);

    /// <summary>Loss of the last step, or null before the first.</summary>
    public double? Loss => Metrics.GetValueOrDefault(StepRow.LossMetric)?.Last;

    /// <summary>Last evaluation's values, by name.</summary>
    public IReadOnlyDictionary<string, double> Eval =>
        Metrics
            .Where(metric => metric.Key.StartsWith(EvalPrefix, StringComparison.Ordinal))
            .ToDictionary(metric => metric.Key[EvalPrefix.Length..], metric => metric.Value.Last);
}
