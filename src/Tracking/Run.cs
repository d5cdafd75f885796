namespace Memopt.Tracking;

/// <summary>How a run stands. <see cref="Interrupted"/> is what a running one becomes when its process is gone.</summary>
public enum RunStatus { Running, Finished, Stopped, Failed, Interrupted }

/// <summary>What is known of a run when it begins (or goes on after a kill, with the same id).</summary>
public sealed record RunStart
{
    /// <summary>Short unique id, lower-case letters and digits; sortable by start.</summary>
    public required string Id { get; init; }
    public required string Experiment { get; init; }
    public DateTimeOffset Started { get; init; }
    /// <summary>The whole config as JSON, overrides applied.</summary>
    public required string Config { get; init; }
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
}

/// <summary>One line of the memory ledger: a name, the estimate, and after the run what was measured under the same name.</summary>
/// <param name="Name">As in the plan: weights, adapters, gradients, optimizer, activations, working set.</param>
/// <param name="Bytes">Estimated bytes.</param>
/// <param name="Place">device or host.</param>
/// <param name="Why">The formula in words.</param>
/// <param name="Measured">Measured bytes, or null where not measured.</param>
public sealed record LedgerRow(string Name, long Bytes, string Place, string Why, long? Measured = null);

/// <summary>One optimizer step. <see cref="Step"/> counts from 1.</summary>
/// <param name="Step">Optimizer step, from 1.</param>
/// <param name="Loss">Mean over the step's trained tokens, nats.</param>
/// <param name="LearningRate">The rate the step was made with.</param>
/// <param name="GradNorm">Global L2 norm before clipping.</param>
/// <param name="Tokens">Trained tokens of the step.</param>
/// <param name="TokensPerSecond">All tokens computed, padding left out, per second.</param>
/// <param name="MemoryBytes">Peak bytes of live tensors (device memory on a GPU) up to the step.</param>
/// <param name="Seconds">Wall time of the step.</param>
public sealed record StepRow(int Step, double Loss, double LearningRate, double GradNorm, long Tokens, double TokensPerSecond, long MemoryBytes, double Seconds);

/// <summary>An evaluation: values by name (loss, perplexity, accuracy, tokens) after a step.</summary>
public sealed record EvalRow(int Step, IReadOnlyDictionary<string, double> Values);

/// <summary>Something that happened to a run and that no number tells: a step of the out-of-memory ladder, a retry, a resume.</summary>
/// <param name="Time">When.</param>
/// <param name="Step">Steps that had been made.</param>
/// <param name="Kind">What sort, lower-case and short: oom, retry, resume.</param>
/// <param name="Text">One sentence for people.</param>
public sealed record RunEvent(DateTimeOffset Time, int Step, string Kind, string Text);

/// <summary>A file or folder a run left, by content.</summary>
/// <param name="Name">adapter, checkpoint-000200, …</param>
/// <param name="Hash">sha256 of the manifest, hex.</param>
/// <param name="Bytes">Sum of its files.</param>
/// <param name="Path">Where it lies for use, or null when only in the artifact store.</param>
public sealed record ArtifactLink(string Name, string Hash, long Bytes, string? Path = null);

/// <summary>How a run ended.</summary>
public sealed record Outcome(RunStatus Status, string? Reason = null)
{
    public DateTimeOffset Ended { get; init; }
    /// <summary>The ledger again, with measured bytes.</summary>
    public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];
}

/// <summary>A run as the store knows it: the start, how it stands, the last values. Step rows are asked for apart.</summary>
public sealed record Run(RunStart Start, RunStatus Status, DateTimeOffset? Ended, string? Reason)
{
    /// <summary>Last step recorded.</summary>
    public int Step { get; init; }
    /// <summary>Loss of the last step, or null before the first.</summary>
    public double? Loss { get; init; }
    /// <summary>Last evaluation's values, by name.</summary>
    public IReadOnlyDictionary<string, double> Eval { get; init; } = new Dictionary<string, double>();
    public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];
    public IReadOnlyList<ArtifactLink> Artifacts { get; init; } = [];
}

/// <summary>Which runs to list: newest first.</summary>
public sealed record RunQuery
{
    public string? Experiment { get; init; }
    public RunStatus? Status { get; init; }
    /// <summary>Tags that must all match.</summary>
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();
    public int Limit { get; init; } = 50;
}
