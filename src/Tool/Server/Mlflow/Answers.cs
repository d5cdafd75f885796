using System.Globalization;
using System.Text.Json.Nodes;
using Memopt.Tracking;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Runs and experiments in the shape of MLflow's messages. Lists are there when they are empty; what is not
/// known is left out.</summary>
internal static class Answers
{
    public const string RunName = "mlflow.runName",
        ParentRun = "mlflow.parentRunId";

    /// <summary>Tags that keep which models went in and came out.</summary>
    public const string ModelIn = Tracking.Run.OwnTags + "model.in.",
        ModelOut = Tracking.Run.OwnTags + "model.out.";

    public static JsonObject Run(Run run, Experiment experiment) =>
        new()
        {
            ["info"] = Info(run, experiment),
            ["data"] = new JsonObject
            {
                ["metrics"] = List(
                    run.Metrics.OrderBy(metric => metric.Key, StringComparer.Ordinal),
                    metric => Metric(metric.Key, new(metric.Value.LastStep, metric.Value.Last, metric.Value.LastTime))
                ),
                ["params"] = List(run.Params.OrderBy(param => param.Key, StringComparer.Ordinal), Pair),
                ["tags"] = List(
                    run.Tags.Where(tag => !tag.Key.StartsWith(Tracking.Run.OwnTags, StringComparison.Ordinal))
                        .OrderBy(tag => tag.Key, StringComparer.Ordinal),
                    Pair
                ),
            },
            ["inputs"] = new JsonObject
            {
                ["dataset_inputs"] = List(DatasetInput.Of(run.Params, run.Start.Hashes, run.Tags), Dataset),
                ["model_inputs"] = List(Marked(run, ModelIn), tag => new JsonObject { ["model_id"] = tag.Key }),
            },
            ["outputs"] = new JsonObject
            {
                ["model_outputs"] = List(
                    Marked(run, ModelOut),
                    tag => new JsonObject
                    {
                        ["model_id"] = tag.Key,
                        ["step"] = long.Parse(tag.Value, CultureInfo.InvariantCulture),
                    }
                ),
            },
        };

    public static JsonObject Info(Run run, Experiment experiment)
    {
        var info = new JsonObject
        {
            ["run_id"] = run.Start.Id,
            ["run_uuid"] = run.Start.Id,
            ["run_name"] = run.Tags.GetValueOrDefault(RunName, run.Start.Id),
            ["experiment_id"] = experiment.Id,
            ["user_id"] = Tracking.Run.UserOf(run.Tags) ?? "",
            ["status"] = Spelled(run.Status),
            ["start_time"] = run.Start.Started.ToUnixTimeMilliseconds(),
        };
        if (run.Ended is { } ended)
            info["end_time"] = ended.ToUnixTimeMilliseconds();
        info["artifact_uri"] = RunArtifacts.Root(experiment.Id, run.Start.Id);
        info["lifecycle_stage"] = Stage(experiment.Deleted || run.Tags.ContainsKey(Tracking.Run.DeletedTag));
        return info;
    }

    public static JsonObject Experiment(Experiment experiment) =>
        new()
        {
            ["experiment_id"] = experiment.Id,
            ["name"] = experiment.Name,
            ["artifact_location"] = $"mlflow-artifacts:/{experiment.Id}",
            ["lifecycle_stage"] = Stage(experiment.Deleted),
            ["last_update_time"] = experiment.Updated.ToUnixTimeMilliseconds(),
            ["creation_time"] = experiment.Created.ToUnixTimeMilliseconds(),
            ["tags"] = List(experiment.Tags.OrderBy(tag => tag.Key, StringComparer.Ordinal), Pair),
        };

    public static JsonObject Metric(string key, Point point) =>
        new()
        {
            ["key"] = key,
            ["value"] = Number(point.Value),
            ["timestamp"] = point.Time,
            ["step"] = point.Step,
        };

    public static JsonArray List<T>(IEnumerable<T> items, Func<T, JsonNode> one) => [.. items.Select(one)];

    /// <summary>A status as MLflow names it: what ended neither well nor by a fault was killed.</summary>
    public static string Spelled(RunStatus status) =>
        status switch
        {
            RunStatus.Running => "RUNNING",
            RunStatus.Finished => "FINISHED",
            RunStatus.Failed => "FAILED",
            _ => "KILLED",
        };

    private static JsonNode Number(double value) =>
        double.IsFinite(value) ? value
        : double.IsNaN(value) ? "NaN"
        : value > 0 ? "Infinity"
        : "-Infinity";

    private static JsonObject Pair(KeyValuePair<string, string> pair) =>
        new() { ["key"] = pair.Key, ["value"] = pair.Value };

    private static JsonObject Dataset(DatasetInput data)
    {
        var dataset = new JsonObject
        {
            ["name"] = data.Name ?? "",
            ["digest"] = data.Digest ?? "",
            ["source_type"] = data.SourceType,
            ["source"] = data.Source,
        };
        if (data.Schema is not null)
            dataset["schema"] = data.Schema;
        if (data.Profile is not null)
            dataset["profile"] = data.Profile;
        return new() { ["tags"] = List(data.Tags, Pair), ["dataset"] = dataset };
    }

    private static IEnumerable<KeyValuePair<string, string>> Marked(Run run, string prefix) =>
        run
            .Tags.Where(tag => tag.Key.StartsWith(prefix, StringComparison.Ordinal))
            .Select(tag => KeyValuePair.Create(tag.Key[prefix.Length..], tag.Value))
            .OrderBy(tag => tag.Key, StringComparer.Ordinal);

    private static string Stage(bool deleted) => deleted ? "deleted" : "active";
}
