using System.Globalization;
using System.Text.RegularExpressions;
using Memopt.Hub;

namespace Memopt.Trainer.Sources;

/// <summary>Where rows come from. In JSON: a string, or an object with the same names.</summary>
/// <param name="Source">A file, folder or glob, relative to the config file, or <c>hf:org/name</c>.</param>
/// <param name="Samples">Takes so many rows, the same ones for the same seed; null takes all. Written <c>#N</c> behind
/// the source.</param>
/// <param name="Weight">How often a row comes in an epoch: 2 is twice, 0.5 is every second row, others in each
/// epoch.</param>
/// <param name="Columns">Names of the source's columns by the names they are to have: <c>{"prompt":
/// "question"}</c>.</param>
/// <param name="Format">Of the files; null goes by their names.</param>
public sealed partial record DataSource(
    string Source,
    int? Samples = null,
    double Weight = 1,
    IReadOnlyDictionary<string, string>? Columns = null,
    DataFormat? Format = null
)
{
    /// <summary>Whether it has to be downloaded.</summary>
    public bool Remote => Source.StartsWith(HubDataSet.Prefix, StringComparison.Ordinal);

    /// <summary>Source and samples as a user writes them in one string.</summary>
    public override string ToString() => Samples is { } count ? $"{Source}#{count}" : Source;

    /// <summary>Reads <c>source#N</c>.</summary>
    public static DataSource Parse(string text) =>
        Sampled().Match(text) is { Success: true } match
        && int.TryParse(match.Groups[2].Value, CultureInfo.InvariantCulture, out var count)
            ? new(match.Groups[1].Value, count)
            : new(text);

    public bool Equals(DataSource? other) =>
        other is not null
        && (Source, Samples, Weight, Format) == (other.Source, other.Samples, other.Weight, other.Format)
        && Sorted(Columns).SequenceEqual(Sorted(other.Columns));

    public override int GetHashCode() => HashCode.Combine(Source, Samples, Weight, Format);

    private static IEnumerable<KeyValuePair<string, string>> Sorted(IReadOnlyDictionary<string, string>? columns) =>
        (columns ?? new Dictionary<string, string>()).OrderBy(pair => pair.Key, StringComparer.Ordinal);

    [GeneratedRegex("^(.+)#([1-9][0-9]*)$", RegexOptions.Singleline)]
    private static partial Regex Sampled();
}
