namespace Memopt.Trainer.Config;

/// <summary>The known name that an unknown one was probably meant to be.</summary>
internal static class NearestName
{
    /// <summary>The known name nearest to another, in letters changed, left out, added or exchanged; null when none is
    /// near, where a beginning of just one is near.</summary>
    public static string? Of(string name, IEnumerable<string> known)
    {
        var all = known.ToList();
        var (best, distance) = all.Select(candidate =>
                (candidate, Distance(name.ToLowerInvariant(), candidate.ToLowerInvariant()))
            )
            .OrderBy(pair => pair.Item2)
            .FirstOrDefault();
        if (
            best is not null
            && distance <= Math.Max(2, name.Length / 3)
            && distance < Math.Max(name.Length, best.Length)
        )
            return best;
        return
            name.Length > 2
            && all.Where(candidate => candidate.StartsWith(name, StringComparison.OrdinalIgnoreCase)).ToList()
                is [var only]
            ? only
            : null;
    }

    /// <summary>" (did you mean …?)" for the nearest name, or else for <paramref name="otherwise"/>; empty when there
    /// is neither.</summary>
    public static string Hint(string name, IEnumerable<string> known, string? otherwise = null) =>
        (Of(name, known) ?? otherwise) is { } near ? $" (did you mean {near}?)" : "";

    /// <summary>Optimal string alignment: Levenshtein's distance in which two neighbours exchanged cost one.</summary>
    private static int Distance(string a, string b)
    {
        // A stranger's file may have a name of any length.
        if (Math.Abs(a.Length - b.Length) > 64 || a.Length > 256)
            return int.MaxValue;
        var rows = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++)
        {
            for (var j = 0; j <= b.Length; j++)
            {
                rows[i, j] =
                    i == 0 || j == 0
                        ? i + j
                        : Math.Min(
                            Math.Min(rows[i - 1, j], rows[i, j - 1]) + 1,
                            rows[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
                        );
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                    rows[i, j] = Math.Min(rows[i, j], rows[i - 2, j - 2] + 1);
            }
        }
        return rows[a.Length, b.Length];
    }
}
