namespace Memopt.Tracking;

/// <summary>The names that runs have beside their metrics, parameters and tags.</summary>
internal static class Attributes
{
    private static readonly Dictionary<string, Operand> all = new(StringComparer.OrdinalIgnoreCase)
    {
        ["run_id"] = Text(run => run.Id),
        ["run_name"] = Text(run => run.Tags.GetValueOrDefault("mlflow.runName")),
        ["user_id"] = Text(run => Run.UserOf(run.Tags)),
        ["experiment"] = Text(run => run.Experiment),
        ["status"] = new(OperandKind.Status, subject => Spelled(subject.Run.Status)),
        ["reason"] = Text(run => run.Reason),
        ["git_commit"] = Text(run => run.Commit),
        ["parent"] = Text(run => run.Parent),
        ["start_time"] = new(OperandKind.Time, subject => (double)subject.Run.Started),
        ["end_time"] = new(OperandKind.Time, subject => (double?)subject.Run.Ended),
        ["duration"] = Number(run => (run.Ended - run.Started) / 1000.0),
        ["step"] = Number(run => run.Metrics.Count == 0 ? 0 : run.Metrics.Values.Max(metric => metric.LastStep)),
        ["total_steps"] = Number(run => run.TotalSteps),
        ["experiment_id"] = new(OperandKind.Loose, subject => subject.ExperimentId(subject.Run.Experiment)),
        ["artifact_uri"] = new(
            OperandKind.Text,
            subject => Run.ArtifactUri(subject.ExperimentId(subject.Run.Experiment), subject.Run.Id)
        ),
    };

    private static readonly Dictionary<string, string> aliases = new(StringComparer.OrdinalIgnoreCase)
    {
        ["id"] = "run_id",
        ["run"] = "run_id",
        ["Run ID"] = "run_id",
        ["run name"] = "run_name",
        ["name"] = "run_name",
        ["User"] = "user_id",
        ["experiment_name"] = "experiment",
        ["created"] = "start_time",
        ["started"] = "start_time",
        ["creation_time"] = "start_time",
        ["last_update_time"] = "end_time",
        ["Start Time"] = "start_time",
        ["ended"] = "end_time",
        ["commit"] = "git_commit",
    };

    public static IEnumerable<string> Names => all.Keys;

    public static Operand? Find(string name) => all.GetValueOrDefault(aliases.GetValueOrDefault(name, name));

    public static string Spelled(RunStatus status) => status.ToString().ToLowerInvariant();

    private static Operand Text(Func<RunRecord, string?> read) => new(OperandKind.Text, subject => read(subject.Run));

    private static Operand Number(Func<RunRecord, double?> read) =>
        new(OperandKind.Number, subject => read(subject.Run));
}
