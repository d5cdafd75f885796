using System.Text.Json.Serialization;

namespace Memopt.Tracking;

/// <summary>A name and all that was registered under it.</summary>
/// <param name="Name">Letters, digits, . _ and -.</param>
/// <param name="All">Every version there was, in order of number.</param>
/// <param name="History">Every change of an alias, oldest first.</param>
public sealed record RegisteredAdapter(
    string Name,
    IReadOnlyList<AdapterVersion> All,
    IReadOnlyList<AliasChange> History
)
{
    /// <summary>The newest version; set by itself.</summary>
    public const string Latest = "latest";

    /// <summary>The version of the best evaluation; set by itself.</summary>
    public const string Best = "best";

    /// <summary>Versions that were not removed, in order of number.</summary>
    [JsonIgnore]
    public IReadOnlyList<AdapterVersion> Versions => [.. All.Where(version => version.Removed is null)];

    /// <summary>Numbers by alias: latest, best, and those that users set.</summary>
    [JsonIgnore]
    public IReadOnlyDictionary<string, int> Aliases
    {
        get
        {
            var aliases = new SortedDictionary<string, int>(StringComparer.Ordinal);
            foreach (var change in History.GroupBy(change => change.Alias).Select(changes => changes.Last()))
            {
                if (Versions.FirstOrDefault(version => version.Key == (change.Hash, change.Run)) is { } version)
                    aliases[change.Alias] = version.Number;
            }
            if (Versions.Count > 0)
                aliases[Latest] = Versions[^1].Number;
            if (BestVersion is { } best)
                aliases[Best] = best.Number;
            return aliases;
        }
    }

    /// <summary>Whether a user's alias means a version.</summary>
    public bool Named(AdapterVersion version) =>
        Aliases.Any(alias => alias.Key is not (Latest or Best) && alias.Value == version.Number);

    /// <summary>What tells the best version: <c>min</c> or <c>max</c> of a metric. Throws when it is written
    /// otherwise.</summary>
    public static (bool Least, string Metric) Rule(string best) =>
        AdapterRegistry.RuleForm().Match(best) is { Success: true } match
            ? (match.Groups["which"].Value == "min", match.Groups["metric"].Value)
            : throw new TrackingException(
                $"\"{best}\" does not say what is best: write min(eval_loss) or max(eval_accuracy)."
            )
            {
                Failed = false,
            };

    /// <summary>The best version by the newest version's rule, of equals the newer; null when no version has the
    /// metric. Scores on different evaluation data say nothing about each other: only versions are compared that were
    /// judged on the data of the newest one that was judged.
    /// </summary>
    [JsonIgnore]
    public AdapterVersion? BestVersion
    {
        get
        {
            if (Versions.Count == 0)
                return null;
            var (least, metric) = Rule(Versions[^1].Best);
            var judged = Versions
                .Where(version => version.Metrics.TryGetValue(metric, out var value) && !double.IsNaN(value))
                .Reverse()
                .ToList();
            return judged
                .Where(version => !ByData(metric) || version.Data == judged[0].Data)
                .MaxBy(version => least ? -version.Metrics[metric] : version.Metrics[metric]);
        }
    }

    /// <summary>The version that was best until a version on other evaluation data came, if so; the two are not
    /// compared.</summary>
    /// <param name="before">What was known before.</param>
    public AdapterVersion? NotCompared(RegisteredAdapter? before) =>
        before?.BestVersion is { } was
        && BestVersion is { } now
        && was.Data != now.Data
        && ByData(Rule(Versions[^1].Best).Metric)
            ? was
            : null;

    /// <summary>Whether a metric is measured on the evaluation data.</summary>
    public static bool ByData(string metric) =>
        metric.StartsWith(Memopt.Tracking.Run.EvalPrefix, StringComparison.Ordinal);

    /// <summary>Both merged: nothing that either has is lost. A version of both has this one's number; one that only
    /// the other has keeps its number if it is free here.
    /// </summary>
    internal RegisteredAdapter With(RegisteredAdapter? other)
    {
        if (other is null)
            return this;
        var theirs = other.All.ToDictionary(version => version.Key);
        var all = All.Select(version =>
                theirs.Remove(version.Key, out var same) && same.Changed > version.Changed
                    ? same with
                    {
                        Number = version.Number,
                    }
                    : version
            )
            .ToList();
        foreach (var version in theirs.Values.OrderBy(version => version.Number))
            all.Add(
                version with
                {
                    Number = all.Any(mine => mine.Number == version.Number)
                        ? all.Max(mine => mine.Number) + 1
                        : version.Number,
                }
            );
        return new(
            Name,
            [.. all.OrderBy(version => version.Number)],
            [.. History.Union(other.History).OrderBy(change => change.Time)]
        );
    }
}
