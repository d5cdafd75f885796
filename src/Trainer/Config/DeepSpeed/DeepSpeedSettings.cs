using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>Puts what a DeepSpeed file decides into a config, by the road of <c>--set</c>.</summary>
/// <param name="config">The file of the config.</param>
/// <param name="problems">Gets a problem for each setting that the config says otherwise.</param>
/// <param name="overrides">What the command line changed, which stays.</param>
internal sealed class DeepSpeedSettings(string config, ConfigProblems problems, ConfigOverrides overrides)
{
    private const string Code = "MEMOPT0006";
    private const string Steps = "train.steps",
        Epochs = "train.epochs";

    /// <summary>The settings, with those of the file.</summary>
    /// <param name="settings">As the config and the command line have them.</param>
    /// <param name="file">The DeepSpeed file.</param>
    /// <param name="written">Whether the config itself writes a setting.</param>
    public RunConfig Apply(RunConfig settings, DeepSpeedFile file, Func<string, bool> written)
    {
        var given = overrides.Made.Select(made => made.Key).ToHashSet();
        if (given.Contains(Epochs))
            given.Add(Steps);
        foreach (var (assignment, key) in file.Assignments.Where(each => !given.Contains(each.Assignment.Setting)))
        {
            if (assignment.Setting == Steps && written(Epochs))
                problems.AddOf(Epochs, $"is written in {config}, but {Said(file, key)}: keep one", Code);
            var before = Text(settings, assignment.Setting);
            var after = overrides.Apply(settings, $"{assignment}", Path.GetFileName(file.File));
            var now = Text(after, assignment.Setting);
            if (before == now || !written(assignment.Setting) || before is "null" or "\"auto\"")
                settings = after;
            else
                problems.AddOf(
                    assignment.Setting,
                    $"is {before} in {config}, but {Said(file, key)}, which is {assignment.Setting} = {now}: keep one",
                    Code
                );
        }
        return settings;
    }

    private static string Said(DeepSpeedFile file, DeepSpeedKey key) =>
        $"{file.File}{(key.Line > 0 ? $"({key.Line},{key.Column})" : "")} has {key.Key}"
        + (key.Value is null ? " at its default" : $" = {key.Value}");

    private static string Text(RunConfig settings, string name) =>
        ConfigWriter.Node(Setting.Find(name)!.Value(settings))?.ToJsonString() ?? "null";
}
