using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tracking;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Calls that add to a run: metrics, parameters, tags, data and models.</summary>
internal sealed class RunLogCalls(OpenRuns open)
{
    private const string ModelHistory = "mlflow.log-model.history";

    public JsonObject LogMetric(MlflowRequest request)
    {
        var value = RunFields.Metric(request);
        return Change(request, run => Write(run, [value]));
    }

    public JsonObject LogParam(MlflowRequest request)
    {
        var (key, value) = RunFields.Param(request);
        return Change(request, run => Write(run, Fresh(run, [(key, value)])));
    }

    public JsonObject SetTag(MlflowRequest request)
    {
        var (key, value) = RunFields.Tag(request);
        return Change(request, run => run.SetTag(key, value));
    }

    public JsonObject DeleteTag(MlflowRequest request)
    {
        var key = request.Required("key");
        return Change(
            request,
            run =>
            {
                if (!run.Tags.ContainsKey(key) || key.StartsWith(Run.OwnTags, StringComparison.Ordinal))
                    throw new MlflowFault(MlflowFault.Missing, $"No tag with name: {key} in run with id {run.Id}");
                run.SetTag(key, null);
            }
        );
    }

    /// <summary>All is looked at before anything is written, so a batch that is refused leaves nothing.</summary>
    public JsonObject LogBatch(MlflowRequest request)
    {
        var (metrics, @params, tags) = (
            request.Messages("metrics"),
            request.Messages("params"),
            request.Messages("tags")
        );
        Limits.Batch("metrics", metrics.Count, Limits.BatchMetrics);
        Limits.Batch("params", @params.Count, Limits.BatchParams);
        Limits.Batch("tags", tags.Count, Limits.BatchTags);
        Limits.Batch("metrics, params, and tags", metrics.Count + @params.Count + tags.Count, Limits.BatchAll);
        var (values, named, marks) = (
            metrics.Select(RunFields.Metric).ToList(),
            @params.Select(RunFields.Param).ToList(),
            tags.Select(RunFields.Tag).ToList()
        );
        if (
            named.CountBy(param => param.Key).Where(count => count.Value > 1).Select(count => count.Key).ToList() is
            { Count: > 0 } twice
        )
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"Duplicate parameter keys have been submitted: {string.Join(", ", twice)}. Please ensure the "
                    + "request contains only one param value per param key."
            );
        return Change(
            request,
            run =>
            {
                var fresh = Fresh(run, named);
                Write(run, values);
                Write(run, fresh);
                marks.ForEach(tag => run.SetTag(tag.Key, tag.Value));
            }
        );
    }

    public JsonObject LogInputs(MlflowRequest request)
    {
        var data = request
            .Messages("datasets")
            .Select(input =>
            {
                var dataset = input.Message("dataset");
                static string? Clean(string? text) => text is null ? null : Secrets.Redact(text);
                return new DatasetInput(
                    RunFields.Text("Dataset name", dataset.Required("name"), 500),
                    RunFields.Text("Dataset digest", dataset.Required("digest"), 36)
                )
                {
                    SourceType = dataset.Required("source_type"),
                    Source = Clean(Limits.Value("Dataset source", dataset.Required("source"), 65_535))!,
                    Schema = Clean(dataset.Text("schema")),
                    Profile = Clean(dataset.Text("profile")),
                    Tags = input
                        .Messages("tags")
                        .DistinctBy(tag => tag.Required("key"))
                        .ToDictionary(
                            tag => tag.Required("key"),
                            tag => RunFields.Text("Input tag value", tag.Text("value") ?? "", 500)
                        ),
                }.AsTag();
            })
            .ToList();
        var models = request
            .Messages("models")
            .Select(model => (Answers.ModelIn + RunFields.Model(model), ""))
            .ToList();
        return Change(
            request,
            run =>
                data.Concat(models)
                    .Where(tag => !run.Tags.ContainsKey(tag.Item1))
                    .ToList()
                    .ForEach(tag => run.SetTag(tag.Item1, tag.Item2))
        );
    }

    public JsonObject LogOutputs(MlflowRequest request)
    {
        var models = request
            .Messages("models")
            .Select(model =>
                (
                    Name: Answers.ModelOut + RunFields.Model(model),
                    Step: (model.Integer("step") ?? 0).ToString(CultureInfo.InvariantCulture)
                )
            )
            .ToList();
        return Change(request, run => models.ForEach(model => run.SetTag(model.Name, model.Step)));
    }

    /// <summary>Records a model's description with the run; its files come as artifacts.</summary>
    public JsonObject LogModel(MlflowRequest request)
    {
        var model = Parsed<JsonObject>("model_json", request.Required("model_json"));
        if (
            new[] { "run_id", "artifact_path", "utc_time_created", "flavors" }
                .Where(field => model[field] is null)
                .ToList() is
            { Count: > 0 } absent
        )
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"Model json is missing mandatory fields: {string.Join(", ", absent)}"
            );
        return Change(
            request,
            run =>
            {
                var history = run.Tags.TryGetValue(ModelHistory, out var known)
                    ? Parsed<JsonArray>($"the tag {ModelHistory}", known)
                    : [];
                history.Add(model);
                run.SetTag(ModelHistory, Secrets.Redact(history.ToJsonString()));
            }
        );

        static T Parsed<T>(string what, string text)
            where T : JsonNode
        {
            try
            {
                return JsonNode.Parse(text) as T ?? throw new JsonException("it has another shape");
            }
            catch (JsonException e)
            {
                throw new MlflowFault(MlflowFault.Invalid, $"Malformed model info: {what} cannot be read: {e.Message}");
            }
        }
    }

    private JsonObject Change(MlflowRequest request, Action<OpenRuns.OpenRun> change)
    {
        open.Change(request.RunId, change);
        return [];
    }

    private static void Write(OpenRuns.OpenRun run, List<(string Key, string Value)> fresh)
    {
        foreach (var (key, value) in fresh)
        {
            run.SetParam(key, value);
        }
    }

    /// <summary>Values of one step and instant make one line.</summary>
    private static void Write(OpenRuns.OpenRun run, List<MetricValue> values)
    {
        var i = 0;
        while (i < values.Count)
        {
            var (first, row) = (values[i], new Dictionary<string, double>());
            for (
                ;
                i < values.Count
                    && values[i].Step == first.Step
                    && values[i].Time == first.Time
                    && row.TryAdd(values[i].Key, values[i].Number);
                i++
            ) { }
            run.Writer.Append(new MetricRow(first.Step, row, DateTimeOffset.FromUnixTimeMilliseconds(first.Time)));
        }
    }

    /// <summary>Parameters that the run does not have; throws when it has one with another value.</summary>
    private static List<(string Key, string Value)> Fresh(OpenRuns.OpenRun run, List<(string Key, string Value)> wanted)
    {
        var changed = wanted.FirstOrDefault(param =>
            run.Params.TryGetValue(param.Key, out var known) && known != param.Value
        );
        if (changed.Key is not null)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"Changing param values is not allowed. Param with key='{changed.Key}' was already logged with "
                    + $"value='{run.Params[changed.Key]}' for run ID='{run.Id}'. Attempted logging new value '"
                    + $"{changed.Value}'."
            );
        return [.. wanted.Where(param => !run.Params.ContainsKey(param.Key))];
    }
}
