using Memopt.Core;

namespace Memopt.Tracking;

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
