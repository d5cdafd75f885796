using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tracking;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Calls on experiments.</summary>
internal sealed class ExperimentCalls(Experiments experiments)
{
    public JsonObject Create(MlflowRequest request)
    {
        var name = Limits.Experiment(request.Required("name"));
        if (request.Text("artifact_location")?.AsSpan().ContainsAny('#', ';') == true)
            throw new MlflowFault(MlflowFault.Invalid, "'artifact_location' cannot include fragments or parameters.");
        var tags = new Dictionary<string, string>();
        foreach (var tag in request.Messages("tags"))
            tags[Limits.TagName(tag.Required("key"))] = Value(tag.Required("key"), tag.Text("value"));
        return experiments.Create(name, tags) is { } made ? new() { ["experiment_id"] = made.Id } : throw Taken(name);
    }

    public JsonObject Search(MlflowRequest request)
    {
        var page = experiments.Find(
            request.Text("filter"),
            request.Texts("order_by"),
            request.Deleted("view_type"),
            request.Count("max_results", 1000, Limits.Results),
            Page(request)
        );
        var answer = new JsonObject { ["experiments"] = Answers.List(page.Found, Answers.Experiment) };
        if (page.Next is not null)
            answer["next_page_token"] = page.Next;
        return answer;
    }

    /// <summary>As MLflow 1 had it: all at once.</summary>
    public JsonObject List(MlflowRequest request) =>
        new()
        {
            ["experiments"] = Answers.List(
                experiments.Find(null, ["experiment_id"], request.Deleted("view_type"), Limits.Results, null).Found,
                Answers.Experiment
            ),
        };

    public JsonObject Get(MlflowRequest request) =>
        new() { ["experiment"] = Answers.Experiment(Known(request.Required("experiment_id"))) };

    public JsonObject GetByName(MlflowRequest request)
    {
        var name = request.Required("experiment_name");
        return experiments.All().FirstOrDefault(experiment => experiment.Name == name) is { } found
            ? new() { ["experiment"] = Answers.Experiment(found) }
            : throw new MlflowFault(MlflowFault.Missing, $"Could not find experiment with name '{name}'");
    }

    public JsonObject Delete(MlflowRequest request) =>
        Change(
            request,
            experiment =>
                !experiment.Deleted
                    ? experiment with
                    {
                        Deleted = true,
                    }
                    : throw new MlflowFault(
                        MlflowFault.Missing,
                        $"No active experiment with id={experiment.Id} exists: it is deleted."
                    )
        );

    public JsonObject Restore(MlflowRequest request) =>
        Change(
            request,
            experiment =>
                experiment.Deleted
                    ? experiment with
                    {
                        Deleted = false,
                    }
                    : throw new MlflowFault(
                        MlflowFault.Missing,
                        $"No deleted experiment with id={experiment.Id} exists: it is active."
                    )
        );

    public JsonObject Update(MlflowRequest request)
    {
        var name = Limits.Experiment(request.Required("new_name"));
        return Change(
            request,
            experiment =>
                !experiment.Deleted
                    ? experiment with
                    {
                        Name = name,
                    }
                    : throw new MlflowFault(
                        MlflowFault.State,
                        $"The experiment {experiment.Id} is deleted; only an active one can be renamed."
                    )
        );
    }

    public JsonObject SetTag(MlflowRequest request)
    {
        var (key, value) = (
            Limits.TagName(request.Required("key")),
            Value(request.Required("key"), request.Text("value"))
        );
        return Change(
            request,
            experiment =>
                Active(experiment) with
                {
                    Tags = new Dictionary<string, string>(experiment.Tags) { [key] = value },
                }
        );
    }

    public JsonObject DeleteTag(MlflowRequest request)
    {
        var key = request.Required("key");
        return Change(
            request,
            experiment =>
                Active(experiment).Tags.ContainsKey(key)
                    ? experiment with
                    {
                        Tags = experiment.Tags.Where(tag => tag.Key != key).ToDictionary(),
                    }
                    : throw new MlflowFault(
                        MlflowFault.Missing,
                        $"No tag with name: {key} in experiment with ID {experiment.Id}"
                    )
        );
    }

    public Experiment Known(string id) =>
        experiments.Get(id) ?? throw new MlflowFault(MlflowFault.Missing, $"No Experiment with id={id} exists");

    public static Experiment Active(Experiment experiment) =>
        !experiment.Deleted
            ? experiment
            : throw new MlflowFault(
                MlflowFault.Invalid,
                $"The experiment {experiment.Id} must be in the 'active' state. Current state is deleted."
            );

    public static string? Page(MlflowRequest request) =>
        request.Text("page_token") is { Length: > 0 } page ? page : null;

    private JsonObject Change(MlflowRequest request, Func<Experiment, Experiment> change)
    {
        var id = Known(request.Required("experiment_id")).Id;
        return experiments.Change(id, change) is not null ? [] : throw Taken(request.Text("new_name")!);
    }

    private static string Value(string key, string? value) =>
        Secrets.Redact(key, Limits.Value("Tag value", value ?? "", Limits.Tag));

    private static MlflowFault Taken(string name) =>
        new(
            MlflowFault.Exists,
            $"Experiment(name={name}) already exists. It may be deleted; then it can be restored, or another name "
                + "taken."
        );
}
