using Memopt.Core;

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

/// <summary>What is known of a run when it begins (or goes on after a kill, with the same id).</summary>
public sealed record RunStart
{
    /// <summary>Short unique id, lower-case letters and digits; sortable by start.</summary>
    public required string Id { get; init; }
    public required string Experiment { get; init; }
    public DateTimeOffset Started { get; init; }

    /// <summary>The whole config as JSON, overrides applied.</summary>
    public required string Config { get; init; }

    /// <summary>Settings that the command line changed, by name: their values as JSON.</summary>
    public IReadOnlyDictionary<string, string> Overrides { get; init; } = new Dictionary<string, string>();

    /// <summary>sha256 by role: model, data.train, data.eval, tokenizer, template, config.</summary>
    public IReadOnlyDictionary<string, string> Hashes { get; init; } = new Dictionary<string, string>();

    /// <summary>Git commit of the config's folder, or null outside a repository.</summary>
    public string? GitCommit { get; init; }
    public bool GitDirty { get; init; }

    /// <summary>Tool, .NET, libtorch, device, OS.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();

    /// <summary>What training was estimated to need.</summary>
    public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];

    /// <summary>Optimizer steps the run is to make.</summary>
    public int TotalSteps { get; init; }

    /// <summary>The run this one came from, or null.</summary>
    public RunParent? Parent { get; init; }

    /// <summary>The same start with every secret replaced.</summary>
    internal RunStart Redacted() =>
        this with
        {
            Config = Secrets.Redact(Config),
            Overrides = Secrets.Redact(Overrides),
            Environment = Secrets.Redact(Environment),
            Tags = Secrets.Redact(Tags),
        };
}

/// <summary>Where a run came from.</summary>
/// <param name="Id">The other run.</param>
/// <param name="Kind">How: sweep for a part of one, again for the same training once more, fork for one that starts
/// from its adapter.</param>
public sealed record RunParent(string Id, string Kind);

/// <summary>One line of the memory ledger: a name, the estimate, and after the run what was measured under the same
/// name.</summary>
/// <param name="Name">As in the plan: weights, adapters or trained weights, gradients, optimizer, activations, working
/// set.</param>
/// <param name="Bytes">Estimated bytes.</param>
/// <param name="Place">device, host or disk.</param>
/// <param name="Why">The formula in words.</param>
/// <param name="Measured">Measured bytes, or null where not measured.</param>
public sealed record LedgerRow(string Name, long Bytes, string Place, string Why, long? Measured = null);

/// <summary>One optimizer step. <see cref="Step"/> counts from 1. In the store its fields are metrics: loss,
/// learning_rate, grad_norm, tokens, tokens_per_second, memory_bytes, seconds.</summary>
/// <param name="Step">Optimizer step, from 1.</param>
/// <param name="Loss">Mean over the step's trained tokens, nats.</param>
/// <param name="LearningRate">The rate the step was made with.</param>
/// <param name="GradNorm">Global L2 norm before clipping.</param>
/// <param name="Tokens">Trained tokens of the step.</param>
/// <param name="TokensPerSecond">All tokens computed, padding left out, per second.</param>
/// <param name="MemoryBytes">Peak bytes of live tensors (device memory on a GPU) up to the step.</param>
/// <param name="Seconds">Wall time of the step.</param>
public sealed record StepRow(
    int Step,
    double Loss,
    double LearningRate,
    double GradNorm,
    long Tokens,
    double TokensPerSecond,
    long MemoryBytes,
    double Seconds
);

/// <summary>An evaluation: values by name (loss, perplexity, accuracy, tokens) after a step. In the store they are
/// metrics: eval_loss, eval_perplexity, …</summary>
public sealed record EvalRow(int Step, IReadOnlyDictionary<string, double> Values);

/// <summary>Values of any metrics at one step.</summary>
/// <param name="Step">The step they belong to.</param>
/// <param name="Values">By name; NaN and infinities are kept.</param>
/// <param name="Time">When, or null for now.</param>
public sealed record MetricRow(long Step, IReadOnlyDictionary<string, double> Values, DateTimeOffset? Time = null);

/// <summary>One value of a metric.</summary>
/// <param name="Step">The step it belongs to.</param>
/// <param name="Value">May be NaN or infinite.</param>
/// <param name="Time">Milliseconds since 1970, UTC.</param>
public readonly record struct Point(long Step, double Value, long Time);

/// <summary>A metric of a run in a few numbers, kept as points come in. NaN counts for <see cref="Count"/> and
/// <see cref="Last"/> only.</summary>
/// <param name="Count">Points.</param>
/// <param name="Last">Value at the highest step; of several there, the latest, and of one instant the greatest, as
/// MLflow has it.</param>
/// <param name="LastStep">That step.</param>
/// <param name="LastTime">Its time, milliseconds since 1970, UTC.</param>
/// <param name="Min">Least value, NaN when there is none.</param>
/// <param name="MinStep">Where it was first reached.</param>
/// <param name="Max">Greatest value, NaN when there is none.</param>
/// <param name="MaxStep">Where it was first reached.</param>
/// <param name="Mean">Mean of the finite values, NaN when there is none.</param>
public sealed record MetricSummary(
    long Count,
    double Last,
    long LastStep,
    long LastTime,
    double Min,
    long MinStep,
    double Max,
    long MaxStep,
    double Mean
);

/// <summary>Something that happened to a run and that no number tells: a step of the out-of-memory ladder, a retry, a
/// resume.</summary>
/// <param name="Time">When.</param>
/// <param name="Step">Steps that had been made.</param>
/// <param name="Kind">What sort, lower-case and short: oom, retry, resume.</param>
/// <param name="Text">One sentence for people.</param>
public sealed record RunEvent(DateTimeOffset Time, int Step, string Kind, string Text);

/// <summary>A file or folder a run left, by content.</summary>
/// <param name="Name">adapter, checkpoint-000200, …</param>
/// <param name="Hash">sha256 of the manifest, hex. Empty takes back what was linked under the name.</param>
/// <param name="Bytes">Sum of its files.</param>
/// <param name="Path">Where it lies for use, or null when only in the artifact store.</param>
/// <param name="Place">The storage account where it is safe, az://account/container/path; null while it is on this
/// machine only.</param>
public sealed record ArtifactLink(string Name, string Hash, long Bytes, string? Path = null, string? Place = null);

/// <summary>How a run ended.</summary>
public sealed record Outcome(RunStatus Status, string? Reason = null)
{
    public DateTimeOffset Ended { get; init; }

    /// <summary>The ledger again, with measured bytes.</summary>
    public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];
}

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
    public double? Loss => Metrics.GetValueOrDefault("loss")?.Last;

    /// <summary>Last evaluation's values, by name.</summary>
    public IReadOnlyDictionary<string, double> Eval =>
        Metrics
            .Where(metric => metric.Key.StartsWith(EvalPrefix, StringComparison.Ordinal))
            .ToDictionary(metric => metric.Key[EvalPrefix.Length..], metric => metric.Value.Last);
}

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

/// <summary>What a query found.</summary>
/// <param name="Runs">In the query's order.</param>
/// <param name="Values">For each run, the values of <see cref="RunQuery.Columns"/>: string, double, DateTimeOffset or
/// null.</param>
/// <param name="Next">Asks for the next page; null on the last.</param>
/// <param name="Waiting">Runs that are recorded and still being taken in, so they are not in the answer or not up to
/// date; 0 unless the query has a <see cref="RunQuery.Patience"/>.</param>
public sealed record RunPage(
    IReadOnlyList<Run> Runs,
    IReadOnlyList<IReadOnlyList<object?>> Values,
    string? Next,
    int Waiting = 0
)
{
    /// <summary>Names in the filter or the order that no run has, where that may be why nothing was found or nothing
    /// was ordered: misspelt ones, perhaps.</summary>
    public IReadOnlyList<UnknownName> Unknown { get; init; } = [];
}

/// <summary>A metric, parameter, tag or hash that no run has.</summary>
/// <param name="Name">As in a filter: metrics.los.</param>
/// <param name="Near">Names of its kind that runs have and that are spelt alike, the nearest first.</param>
public sealed record UnknownName(string Name, IReadOnlyList<string> Near);
