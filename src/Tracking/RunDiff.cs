using System.Globalization;

namespace Memopt.Tracking;

/// <summary>One thing in which two runs differ.</summary>
/// <param name="Section">config, hashes, code, environment, tags, memory or result.</param>
/// <param name="Key">What.</param>
/// <param name="A">In the first, null where it has none.</param>
/// <param name="B">In the second.</param>
public sealed record RunDifference(string Section, string Key, string? A, string? B);

/// <summary>What two runs do not have in common: what they were given first, what came of it last.</summary>
public static class RunDiff
{
    public static IReadOnlyList<RunDifference> Between(Run a, Run b)
    {
        var differences = new List<RunDifference>();
        Section("config", run => run.Params);
        Section("hashes", run => run.Start.Hashes);
        Section("code", run => Of(("commit", run.Start.GitCommit), ("uncommitted changes", run.Start.GitDirty ? "yes" : "no")));
        Section("environment", run => run.Start.Environment);
        Section("tags", run => run.Tags);
        Section("memory", run => run.Ledger.SelectMany(row => new[] { (row.Name, (string?)Text(row.Bytes)), (row.Name + ", measured", row.Measured is { } bytes ? Text(bytes) : null) })
            .Where(row => row.Item2 is not null).GroupBy(row => row.Item1).ToDictionary(row => row.Key, row => row.First().Item2!));
        Section("result", run => Of([("status", run.Status.ToString().ToLowerInvariant()), ("reason", run.Reason), ("step", Text(run.Step)), ("parent", run.Start.Parent is { } parent ? $"{parent.Id} ({parent.Kind})" : null),
            .. run.Metrics.Select(metric => (metric.Key, (string?)metric.Value.Last.ToString("G7", CultureInfo.InvariantCulture))),
            .. run.Artifacts.Select(artifact => (artifact.Name, (string?)artifact.Hash))]));
        return differences;

        void Section(string name, Func<Run, IReadOnlyDictionary<string, string>> read)
        {
            var (x, y) = (read(a), read(b));
            foreach (var key in x.Keys.Union(y.Keys).Order(StringComparer.Ordinal))
            {
                if (x.GetValueOrDefault(key) != y.GetValueOrDefault(key))
                    differences.Add(new(name, key, x.GetValueOrDefault(key), y.GetValueOrDefault(key)));
            }
        }
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    private static Dictionary<string, string> Of(params (string Key, string? Value)[] facts) =>
        facts.Where(fact => fact.Value is not null).GroupBy(fact => fact.Key).ToDictionary(fact => fact.Key, fact => fact.First().Value!);
}
