using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Memopt.Tracking;

namespace Memopt.Tool.Views;

/// <summary>A run in a list, as JSON gives it.</summary>
internal sealed record RunSummary(
    string RunId,
    string Experiment,
    RunStatus Status,
    DateTimeOffset Started,
    DateTimeOffset? Ended,
    long Step,
    int TotalSteps,
    double? Loss,
    IReadOnlyDictionary<string, double> Eval,
    IReadOnlyDictionary<string, string> Tags
)
{
    public static RunSummary Of(Run run) =>
        new(
            run.Start.Id,
            run.Start.Experiment,
            run.Status,
            run.Start.Started,
            run.Ended,
            run.Step,
            run.Start.TotalSteps,
            run.Loss,
            run.Eval,
            run.Tags
        );
}

/// <summary>An evaluation in <see cref="RunView"/>.</summary>
internal sealed record EvalView(int Step, IReadOnlyDictionary<string, double> Values);

/// <summary>A whole run, as JSON gives it; its points only where they are asked for.</summary>
internal sealed record RunView(
    string RunId,
    string Experiment,
    RunStatus Status,
    string? Reason,
    DateTimeOffset Started,
    DateTimeOffset? Ended,
    int TotalSteps,
    string? GitCommit,
    bool GitDirty,
    IReadOnlyDictionary<string, string> Hashes,
    IReadOnlyDictionary<string, string> Environment,
    RunParent? Parent,
    IReadOnlyDictionary<string, string> Tags,
    JsonNode? Config,
    IReadOnlyDictionary<string, string> Overrides,
    IReadOnlyDictionary<string, string> Params,
    IReadOnlyList<LedgerRow> Ledger,
    IReadOnlyList<ArtifactLink> Artifacts,
    IReadOnlyDictionary<string, MetricSummary> Metrics,
    IEnumerable<EvalView> Evals,
    IReadOnlyList<RunEvent> Events
)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<StepRow>? Steps { get; init; }

    public static RunView Of(Run run, IRunStore runs) =>
        new(
            run.Start.Id,
            run.Start.Experiment,
            run.Status,
            run.Reason,
            run.Start.Started,
            run.Ended,
            run.Start.TotalSteps,
            run.Start.GitCommit,
            run.Start.GitDirty,
            run.Start.Hashes,
            run.Start.Environment,
            run.Start.Parent,
            run.Tags,
            Parsed(run.Start.Config),
            run.Start.Overrides,
            run.Params,
            run.Ledger,
            run.Artifacts,
            run.Metrics,
            runs.Evals(run.Start.Id).Select(eval => new EvalView(eval.Step, eval.Values)),
            runs.Events(run.Start.Id)
        );

    /// <summary>Programs may record any text as their config.</summary>
    private static JsonNode? Parsed(string config)
    {
        try
        {
            return JsonNode.Parse(config);
        }
        catch (JsonException)
        {
            return JsonValue.Create(config);
        }
    }
}
