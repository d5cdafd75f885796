using System.Text.RegularExpressions;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>What MLflow's server takes: its clients count on refusals as much as on answers
/// (mlflow/utils/validation.py).</summary>
internal static partial class Limits
{
    public const int Key = 250,
        Param = 6000,
        Tag = 5000,
        ExperimentName = 500;
    public const int BatchMetrics = 1000,
        BatchParams = 100,
        BatchTags = 100,
        BatchAll = 1000,
        BatchBytes = 1_000_000;
    public const int Results = 50_000,
        HistoryRuns = 100,
        HistoryPerRun = 2500;

    /// <summary>A name of a metric, parameter or tag, which stores may use as a path.</summary>
    public static string Name(string what, string name)
    {
        if (name.Length > Key)
            throw Fault($"{what} name '{name[..Key]}…' had length {name.Length}, which exceeded length limit of {Key}");
        if (!Names().IsMatch(name))
            throw Fault(
                $"Invalid {what} name: '{name}'. Names may only contain letters, digits, underscores (_), dashes "
                    + "(-), periods (.), spaces ( ), colons (:) and slashes (/)."
            );
        if (name.Split('/').Any(part => part is "" or "." or ".."))
            throw Fault(
                $"Invalid {what} name: '{name}'. Names may be used as paths, and this one would become another."
            );
        return name;
    }

    /// <summary>A tag's name, other than those that the server keeps for itself.</summary>
    public static string TagName(string name) =>
        name.StartsWith(Tracking.Run.OwnTags, StringComparison.Ordinal)
            ? throw Fault($"Invalid tag name: '{name}'. Names that begin with {Tracking.Run.OwnTags} are reserved.")
            : Name("tag", name);

    /// <summary>A text of at most so many characters of Unicode: one outside the basic plane, two for .NET, is
    /// one.</summary>
    public static string Value(string what, string value, int most)
    {
        var length = value.EnumerateRunes().Count();
        return length <= most
            ? value
            : throw Fault(
                $"{what} '{value[..Math.Min(Key, value.Length)]}…' had length {length}, which exceeded length "
                    + $"limit of {most}"
            );
    }

    public static void Batch(string what, int count, int most)
    {
        if (count > most)
            throw Fault(
                $"A batch logging request can contain at most {most} {what}. Got {count} {what}. Please split up "
                    + $"{what} across multiple requests and try again."
            );
    }

    public static string Experiment(string name) =>
        name.Length <= ExperimentName
            ? name
            : throw Fault($"Experiment name exceeds the maximum length of {ExperimentName} characters");

    private static MlflowFault Fault(string message) => new(MlflowFault.Invalid, message);

    [GeneratedRegex(@"\A[/\w.\- :]+\z", RegexOptions.CultureInvariant)]
    private static partial Regex Names();
}
