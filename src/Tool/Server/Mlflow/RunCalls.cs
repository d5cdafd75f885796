using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Calls on runs and their metrics.</summary>
internal sealed class RunCalls(
    LiteRunStore store,
    OpenRuns open,
    ExperimentCalls experiments,
    RunArtifacts artifacts,
    TimeProvider clock
)
{
    private const string ModelHistory = "mlflow.log-model.history";

    private sealed record Value(string Key, double Number, long Time, long Step);

    public JsonObject Create(MlflowRequest request)
    {
        var experiment = ExperimentCalls.Active(
            request.Text("experiment_id") is { Length: > 0 } asked
                ? experiments.Known(asked)
                : store.Experiments.Get("0")!
        );
        var tags = Tags(request.Messages("tags"));
        var id = RunLauncher.NewId();
        if (request.Text("run_name") is { Length: > 0 } name)
        {
            if (tags.GetValueOrDefault(Answers.RunName, name) != name)
                throw new MlflowFault(
                    MlflowFault.Invalid,
                    $"Both 'run_name' and the tag '{Answers.RunName}' are given, with different values: '{name}' "
                        + $"and '{tags[Answers.RunName]}'."
                );
            tags[Answers.RunName] = Text("Run name", name, Limits.Tag);
        }
        tags.TryAdd(Answers.RunName, id);
        if (request.Text("user_id") is { Length: > 0 } user && tags.GetValueOrDefault(Run.ClientUserTag) != user)
            tags[Run.UserTag] = Text("User", user, Limits.Tag);
        var start = new RunStart
        {
            Id = id,
            Experiment = experiment.Key,
            Started = Time(request, "start_time"),
            Config = "{}",
            Tags = tags,
            Parent = tags.GetValueOrDefault(Answers.ParentRun) is { Length: > 0 } parent ? new(parent, "nested") : null,
        };
        open.Create(start);
        return new()
        {
            ["run"] = Answers.Run(new Run(start, RunStatus.Running, null, null) { Tags = tags }, experiment),
        };
    }

    public JsonObject Get(MlflowRequest request)
    {
        var run = artifacts.Known(request.RunId);
        return new() { ["run"] = Answers.Run(run, store.Experiments.Of(run.Start.Experiment)) };
    }

    public JsonObject Search(MlflowRequest request)
    {
        var keys = request
            .Texts("experiment_ids")
            .Distinct()
            .Select(store.Experiments.Get)
            .OfType<Experiment>()
            .ToDictionary(experiment => experiment.Id);
        var page = store.Find(
            new RunQuery
            {
                Filter = request.Text("filter"),
                Order = request.Texts("order_by"),
                Experiments = keys.Values.SelectMany(store.Experiments.Keys).ToHashSet(),
                Deleted = request.Deleted("run_view_type"),
                Limit = request.Count("max_results", 1000, Limits.Results),
                Page = ExperimentCalls.Page(request),
            }
        );
        var byKey = keys
            .Values.SelectMany(experiment => store.Experiments.Keys(experiment).Select(key => (key, experiment)))
            .ToDictionary(one => one.key, one => one.experiment);
        var answer = new JsonObject
        {
            ["runs"] = Answers.List(page.Runs, run => Answers.Run(run, byKey[run.Start.Experiment])),
        };
        if (page.Next is not null)
            answer["next_page_token"] = page.Next;
        return answer;
    }

    public JsonObject Update(MlflowRequest request)
    {
        var status = request.Choice("status")?.ToUpperInvariant() switch
        {
            null or "" => (RunStatus?)null,
            // Nothing is scheduled here: one that will run is one that runs.
            "RUNNING" or "SCHEDULED" or "1" or "2" => RunStatus.Running,
            "FINISHED" or "3" => RunStatus.Finished,
            "FAILED" or "4" => RunStatus.Failed,
            "KILLED" or "5" => RunStatus.Stopped,
            var other => throw new MlflowFault(
                MlflowFault.Invalid,
                $"Invalid value {other} for parameter 'status': expected RUNNING, SCHEDULED, FINISHED, FAILED or "
                    + "KILLED."
            ),
        };
        var (given, name) = (
            request.Integer("end_time") is null or 0 ? (DateTimeOffset?)null : Time(request, "end_time"),
            request.Text("run_name") is { Length: > 0 } asked ? Text("Run name", asked, Limits.Tag) : null
        );
        JsonObject? info = null;
        Change(
            request,
            run =>
            {
                if (name is not null)
                    Set(run, Answers.RunName, name);
                if (status == RunStatus.Running && run.Status != RunStatus.Running)
                    open.Resume(run);
                // A time alone is another end of a run that has ended.
                else if (
                    (status ?? (given is null ? null : run.Status)) is { } end
                    && end is not (RunStatus.Running or RunStatus.Interrupted)
                )
                {
                    var ended = given ?? run.Ended ?? clock.GetUtcNow();
                    run.Writer.End(new Outcome(end) { Ended = ended });
                    (run.Status, run.Ended) = (end, ended);
                }
                info = Answers.Info(
                    new Run(run.Start, run.Status, run.Ended, null) { Tags = run.Tags },
                    store.Experiments.Of(run.Start.Experiment)
                );
            }
        );
        return new() { ["run_info"] = info };
    }

    public JsonObject Delete(MlflowRequest request) => Mark(request, deleted: true);

    public JsonObject Restore(MlflowRequest request) => Mark(request, deleted: false);

    public JsonObject LogMetric(MlflowRequest request)
    {
        var value = Metric(request);
        return Change(request, run => Write(run, [value]));
    }

    public JsonObject LogParam(MlflowRequest request)
    {
        var (key, value) = Param(request);
        return Change(request, run => Write(run, Fresh(run, [(key, value)])));
    }

    public JsonObject SetTag(MlflowRequest request)
    {
        var (key, value) = Tag(request);
        return Change(request, run => Set(run, key, value));
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
                Set(run, key, null);
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
            metrics.Select(Metric).ToList(),
            @params.Select(Param).ToList(),
            tags.Select(Tag).ToList()
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
                marks.ForEach(tag => Set(run, tag.Key, tag.Value));
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
                    Text("Dataset name", dataset.Required("name"), 500),
                    Text("Dataset digest", dataset.Required("digest"), 36)
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
                            tag => Text("Input tag value", tag.Text("value") ?? "", 500)
                        ),
                }.AsTag();
            })
            .ToList();
        var models = request.Messages("models").Select(model => (Answers.ModelIn + Model(model), "")).ToList();
        return Change(
            request,
            run =>
                data.Concat(models)
                    .Where(tag => !run.Tags.ContainsKey(tag.Item1))
                    .ToList()
                    .ForEach(tag => Set(run, tag.Item1, tag.Item2))
        );
    }

    public JsonObject LogOutputs(MlflowRequest request)
    {
        var models = request
            .Messages("models")
            .Select(model =>
                (
                    Name: Answers.ModelOut + Model(model),
                    Step: (model.Integer("step") ?? 0).ToString(CultureInfo.InvariantCulture)
                )
            )
            .ToList();
        return Change(request, run => models.ForEach(model => Set(run, model.Name, model.Step)));
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
                Set(run, ModelHistory, Secrets.Redact(history.ToJsonString()));
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

    public JsonObject History(MlflowRequest request)
    {
        var (run, key) = (artifacts.Known(request.RunId), request.Required("metric_key"));
        var from = ExperimentCalls.Page(request) is { } page
            ? int.TryParse(page, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
                ? number
                : throw new MlflowFault(MlflowFault.Invalid, $"Invalid page token: {page}")
            : 0;
        var points = Points(run.Start.Id, key);
        var many = request.Count("max_results", int.MaxValue, int.MaxValue);
        var answer = new JsonObject
        {
            ["metrics"] = Answers.List(points.Skip(from).Take(many), point => Answers.Metric(key, point)),
        };
        if (points.Count - from > many)
            answer["next_page_token"] = (from + many).ToString(CultureInfo.InvariantCulture);
        return answer;
    }

    /// <summary>Curves of several runs, thinned evenly to what a chart shows; first and last steps are always
    /// there.</summary>
    public JsonObject HistoryOfSeveral(MlflowRequest request)
    {
        var (ids, key, most) = (
            request.Texts("run_ids"),
            request.Required("metric_key"),
            request.Count("max_results", Limits.HistoryPerRun, Limits.HistoryPerRun)
        );
        if (ids.Count is 0 or > Limits.HistoryRuns)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"GetMetricHistoryBulkInterval request must specify from 1 to {Limits.HistoryRuns} run_ids. "
                    + $"Received {ids.Count} run_ids."
            );
        var (first, last) = (request.Integer("start_step"), request.Integer("end_step"));
        if (first is null != last is null)
            throw new MlflowFault(
                MlflowFault.Invalid,
                "If either start step or end step are specified, both must be specified."
            );
        if (first > last)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"end_step must be greater than start_step. Found start_step={first} and end_step={last}."
            );
        var found = ids.Select(id =>
            {
                artifacts.Known(id);
                return (
                    Id: id,
                    Points: Points(id, key)
                        .Where(point => first is null || (point.Step >= first && point.Step <= last))
                        .ToList()
                );
            })
            .ToList();
        // The same steps of every run, so that curves can be compared point by point.
        var steps = found.SelectMany(run => run.Points).Select(point => point.Step).Distinct().Order().ToList();
        var shown =
            steps.Count <= most
                ? steps.ToHashSet()
                :
                [
                    .. Enumerable
                        .Range(0, most)
                        .Select(i => steps[(int)((long)i * (steps.Count - 1) / Math.Max(1, most - 1))]),
                ];
        shown.UnionWith(
            found
                .Where(run => run.Points.Count > 0)
                .SelectMany(run => new[] { run.Points[0].Step, run.Points[^1].Step })
        );
        return new()
        {
            ["metrics"] = Answers.List(
                found.SelectMany(run =>
                    run.Points.Where(point => shown.Contains(point.Step)).Select(point => (run.Id, Point: point))
                ),
                one =>
                {
                    var metric = Answers.Metric(key, one.Point);
                    metric["run_id"] = one.Id;
                    return metric;
                }
            ),
        };
    }

    /// <summary>A value that a client sent twice, since an answer was lost, is one.</summary>
    private List<Point> Points(string id, string key) => [.. store.Points(id, key).Distinct()];

    private JsonObject Change(MlflowRequest request, Action<OpenRuns.OpenRun> change)
    {
        open.Write(
            request.RunId,
            run =>
            {
                if (run.Deleted)
                    throw new MlflowFault(
                        MlflowFault.Invalid,
                        $"The run {run.Id} must be in the 'active' state. Current state is deleted."
                    );
                change(run);
            }
        );
        return [];
    }

    private JsonObject Mark(MlflowRequest request, bool deleted)
    {
        open.Write(
            request.RunId,
            run =>
            {
                if (run.Deleted == deleted)
                    return;
                Set(
                    run,
                    Run.DeletedTag,
                    deleted ? clock.GetUtcNow().ToString("O", CultureInfo.InvariantCulture) : null
                );
                run.Deleted = deleted;
            }
        );
        return [];
    }

    private static void Set(OpenRuns.OpenRun run, string key, string? value)
    {
        run.Writer.Tag(key, value);
        if (value is null)
            run.Tags.Remove(key);
        else
            run.Tags[key] = value;
    }

    private static void Write(OpenRuns.OpenRun run, List<(string Key, string Value)> fresh)
    {
        foreach (var (key, value) in fresh)
        {
            run.Writer.Param(key, value);
            run.Params[key] = value;
        }
    }

    /// <summary>Values of one step and instant make one line.</summary>
    private static void Write(OpenRuns.OpenRun run, List<Value> values)
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

    private Value Metric(MlflowRequest metric)
    {
        var (key, number, time, step) = (
            Limits.Name("metric", metric.Required("key")),
            metric.Number("value"),
            metric.Integer("timestamp"),
            metric.Integer("step") ?? 0
        );
        if (time is null)
            throw new MlflowFault(MlflowFault.Invalid, "Missing value for required parameter 'timestamp'.");
        return new(key, number, Milliseconds("timestamp", time.Value), step);
    }

    private static (string Key, string Value) Param(MlflowRequest param)
    {
        var key = Limits.Name("param", param.Required("key"));
        return (key, Secrets.Redact(key, Limits.Value("Param value", param.Text("value") ?? "", Limits.Param)));
    }

    private static (string Key, string Value) Tag(MlflowRequest tag)
    {
        var key = Limits.TagName(tag.Required("key"));
        return (key, Secrets.Redact(key, Limits.Value("Tag value", tag.Text("value") ?? "", Limits.Tag)));
    }

    private static Dictionary<string, string> Tags(IReadOnlyList<MlflowRequest> tags)
    {
        var all = new Dictionary<string, string>();
        foreach (var (key, value) in tags.Select(Tag))
            all[key] = value;
        return all;
    }

    private static string Model(MlflowRequest model) => Limits.Name("model", model.Required("model_id"));

    private static string Text(string what, string text, int most) => Secrets.Redact(Limits.Value(what, text, most));

    private DateTimeOffset Time(MlflowRequest request, string name) =>
        request.Integer(name) is { } time && time != 0
            ? DateTimeOffset.FromUnixTimeMilliseconds(Milliseconds(name, time))
            : clock.GetUtcNow();

    /// <summary>A time that .NET has a date for: up to the year 9999.</summary>
    private static long Milliseconds(string name, long time) =>
        time >= 0 && time <= DateTimeOffset.MaxValue.ToUnixTimeMilliseconds()
            ? time
            : throw new MlflowFault(
                MlflowFault.Invalid,
                $"Invalid value {time} for parameter '{name}': expected milliseconds since 1970, not negative."
            );
}
