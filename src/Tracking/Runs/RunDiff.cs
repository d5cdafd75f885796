using System.Globalization;

namespace Memopt.Tracking;

/// <summary>One thing in which two runs differ.</summary>
/// <param name="Section">config, hashes, code, environment, tags, memory or result.</param>
/// <param name="Key">What.</param>
/// <param name="A">In the first, null where it has none.</param>
/// <param name="B">In the second.</param>
public sealed record RunDifference(string Section, string Key, string? A, string? B);

/// <summary>One thing in which not all of several runs are alike.</summary>
/// <param name="Section">As in <see cref="RunDifference"/>.</param>
/// <param name="Key">What.</param>
/// <param name="Values">In each of them, null where it has none.</param>
public sealed record RunVariation(string Section, string Key, IReadOnlyList<string?> Values);

/// <summary>What runs do not have in common: what they were given first, what came of it last.</summary>
public static class RunDiff
{
    public static IReadOnlyList<RunDifference> Between(Run a, Run b) =>
        [.. Among([a, b]).Select(one => new RunDifference(one.Section, one.Key, one.Values[0], one.Values[1]))];

    /// <summary>The same of any number.</summary>
    public static IReadOnlyList<RunVariation> Among(IReadOnlyList<Run> runs)
    {
        var variations = new List<RunVariation>();
        Section("config", run => run.Params); // with what the command line changed
        Section("hashes", run => run.Start.Hashes);
        Section(
            "code",
            run => Of(("commit", run.Start.GitCommit), ("uncommitted changes", run.Start.GitDirty ? "yes" : "no"))
        );
        Section("environment", run => run.Start.Environment);
        Section("tags", run => run.Tags);
        Section(
            "memory",
            run =>
                run.Ledger.SelectMany(row =>
                        new[]
                        {
                            (row.Name, (string?)Text(row.Bytes)),
                            (row.Name + ", measured", row.Measured is { } bytes ? Text(bytes) : null),
                        }
                    )
                    .Where(row => row.Item2 is not null)
                    .GroupBy(row => row.Item1)
                    .ToDictionary(row => row.Key, row => row.First().Item2!)
        );
        Section(
            "result",
            run =>
                Of([
                    ("status", run.Status.ToString().ToLowerInvariant()),
                    ("reason", run.Reason),
                    ("step", Text(run.Step)),
                    ("parent", run.Start.Parent is { } parent ? $"{parent.Id} ({parent.Kind})" : null),
                    .. run.Metrics.Select(metric =>
                        (metric.Key, (string?)metric.Value.Last.ToString("G7", CultureInfo.InvariantCulture))
                    ),
                    .. run.Artifacts.Select(artifact => (artifact.Name, (string?)artifact.Hash)),
                ])
        );
        return variations;

        void Section(string name, Func<Run, IReadOnlyDictionary<string, string>> read)
        {
            var sides = runs.Select(read).ToList();
            foreach (var key in sides.SelectMany(side => side.Keys).Distinct().Order(StringComparer.Ordinal))
            {
                var values = sides.Select(side => side.GetValueOrDefault(key)).ToList();
                if (values.Distinct().Count() > 1)
                    variations.Add(new(name, key, values));
            }
        }
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    private static Dictionary<string, string> Of(params (string Key, string? Value)[] facts) =>
        facts
            .Where(fact => fact.Value is not null)
            .GroupBy(fact => fact.Key)
            .ToDictionary(fact => fact.Key, fact => fact.First().Value!);
}
