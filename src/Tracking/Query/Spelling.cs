namespace Memopt.Tracking;

/// <summary>A name that a filter asks for and that some runs have.</summary>
/// <param name="Kind">metrics, params, tags or hashes.</param>
/// <param name="Name">The rest.</param>
internal sealed record RecordedName(string Kind, string Name);

/// <summary>Names that no run has, and those that were meant, perhaps.</summary>
internal static class Spelling
{
    /// <summary>Names that are reported, near names of each, and characters of a name that is compared: to compare
    /// costs the product of two lengths.</summary>
    private const int Most = 5,
        Suggestions = 3,
        Longest = 100;

    /// <summary>Those of some names that no run has, each with near ones; reads the heads of all runs.</summary>
    public static IReadOnlyList<UnknownName> Unknown(
        IReadOnlyCollection<RecordedName> asked,
        IEnumerable<RunRecord> runs
    )
    {
        var known = asked.Select(name => name.Kind).Distinct().ToDictionary(kind => kind, _ => new HashSet<string>());
        foreach (var run in known.Count == 0 ? [] : runs)
        {
            foreach (var (kind, names) in known)
                names.UnionWith(
                    kind switch
                    {
                        "metrics" => run.Metrics.Keys,
                        "params" => run.Params.Keys,
                        "tags" => run.Tags.Keys,
                        _ => run.Hashes.Keys,
                    }
                );
        }
        return
        [
            .. asked
                .Where(name => !known[name.Kind].Contains(name.Name))
                .Take(Most)
                .Select(name => new UnknownName(
                    $"{name.Kind}.{name.Name}",
                    [.. Near(name.Name, known[name.Kind]).Select(near => $"{name.Kind}.{Spelled(near)}")]
                )),
        ];
    }

    private static IEnumerable<string> Near(string name, IEnumerable<string> known)
    {
        var most = Math.Max(2, name.Length / 3);
        return known
            .Where(other => name.Length <= Longest && Math.Abs(other.Length - name.Length) <= most)
            .Select(other => (Name: other, Distance: Distance(name, other)))
            .Where(other => other.Distance <= most)
            .OrderBy(other => other.Distance)
            .ThenBy(other => other.Name, StringComparer.Ordinal)
            .Take(Suggestions)
            .Select(other => other.Name);
    }

    /// <summary>As a filter has to write it.</summary>
    private static string Spelled(string name) =>
        name.All(c => char.IsLetterOrDigit(c) || c is '_' or '.' or '/' or ':' or '-')
            ? name
            : $"`{name.Replace("`", "``")}`";

    /// <summary>Letters to insert, remove or change to make one name of the other, whatever their case.</summary>
    private static int Distance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (var i = 1; i <= a.Length; i++)
        {
            var diagonal = row[0]++;
            for (var j = 1; j <= b.Length; j++)
                (diagonal, row[j]) = (
                    row[j],
                    Math.Min(
                        Math.Min(row[j], row[j - 1]) + 1,
                        diagonal + (char.ToLowerInvariant(a[i - 1]) == char.ToLowerInvariant(b[j - 1]) ? 0 : 1)
                    )
                );
        }
        return row[b.Length];
    }
}
