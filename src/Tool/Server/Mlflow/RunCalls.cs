using System.Globalization;
using System.Text.Json.Nodes;
using Memopt.Tracking;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Calls on runs themselves.</summary>
internal sealed class RunCalls(
    LiteRunStore store,
    OpenRuns open,
    ExperimentCalls experiments,
    RunArtifacts artifacts,
    TimeProvider clock
)
{
    public JsonObject Create(MlflowRequest request)
    {
        var experiment = ExperimentCalls.Active(
            request.Text("experiment_id") is { Length: > 0 } asked
                ? experiments.Known(asked)
                : store.Experiments.Get("0")!
        );
        var tags = RunFields.Tags(request.Messages("tags"));
        var id = RunLauncher.NewId(clock);
        if (request.Text("run_name") is { Length: > 0 } name)
        {
            if (tags.GetValueOrDefault(Answers.RunName, name) != name)
                throw new MlflowFault(
                    MlflowFault.Invalid,
                    $"Both 'run_name' and the tag '{Answers.RunName}' are given, with different values: '{name}' "
                        + $"and '{tags[Answers.RunName]}'."
                );
            tags[Answers.RunName] = RunFields.Text("Run name", name, Limits.Tag);
        }
        tags.TryAdd(Answers.RunName, id);
        if (request.Text("user_id") is { Length: > 0 } user && tags.GetValueOrDefault(Run.ClientUserTag) != user)
            tags[Run.UserTag] = RunFields.Text("User", user, Limits.Tag);
        var start = new RunStart
        {
            Id = id,
            Experiment = experiment.Key,
            Started = RunFields.Time(request, "start_time") ?? clock.GetUtcNow(),
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
        var status = Status(request);
        var (given, name) = (
            RunFields.Time(request, "end_time"),
            request.Text("run_name") is { Length: > 0 } asked ? RunFields.Text("Run name", asked, Limits.Tag) : null
        );
        JsonObject? info = null;
        open.Change(
            request.RunId,
            run =>
            {
                if (name is not null)
                    run.SetTag(Answers.RunName, name);
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

    /// <summary>The status asked for, or null.</summary>
    private static RunStatus? Status(MlflowRequest request) =>
        request.Choice("status")?.ToUpperInvariant() switch
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

    private JsonObject Mark(MlflowRequest request, bool deleted)
    {
        open.Write(
            request.RunId,
            run =>
            {
                if (run.Deleted == deleted)
                    return;
                run.SetTag(
                    Run.DeletedTag,
                    deleted ? clock.GetUtcNow().ToString("O", CultureInfo.InvariantCulture) : null
                );
                run.Deleted = deleted;
            }
        );
        return [];
    }
}
