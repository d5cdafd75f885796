using System.Globalization;
using System.Text.RegularExpressions;

namespace Memopt.Trainer;

/// <summary>How the rows of a file are written down.</summary>
public enum DataFormat
{
    [Alias("ndjson", "jsonlines")] Jsonl,
    Json,
    Csv,
    Tsv,
    Parquet,
}

/// <summary>Where rows come from. In JSON: a string, or an object with the same names.</summary>
/// <param name="Source">A file, folder or glob, relative to the config file, or <c>hf:org/name</c>.</param>
/// <param name="Samples">Takes so many rows, the same ones for the same seed; null takes all. Written <c>#N</c> behind the source.</param>
/// <param name="Weight">How often a row comes in an epoch: 2 is twice, 0.5 is every second row, others in each epoch.</param>
/// <param name="Columns">Names of the source's columns by the names they are to have: <c>{"prompt": "question"}</c>.</param>
/// <param name="Format">Of the files; null goes by their names.</param>
public sealed partial record DataSource(string Source, int? Samples = null, double Weight = 1, IReadOnlyDictionary<string, string>? Columns = null, DataFormat? Format = null)
{
    public const string HubPrefix = "hf:";

    /// <summary>Whether it has to be downloaded.</summary>
    public bool Remote => Source.StartsWith(HubPrefix, StringComparison.Ordinal);

    /// <summary>Source and samples as a user writes them in one string.</summary>
    public override string ToString() => Samples is { } count ? $"{Source}#{count}" : Source;

    /// <summary>Reads <c>source#N</c>.</summary>
    public static DataSource Parse(string text) => Sampled().Match(text) is { Success: true } match && int.TryParse(match.Groups[2].Value, CultureInfo.InvariantCulture, out var count)
        ? new(match.Groups[1].Value, count) : new(text);

    public bool Equals(DataSource? other) => other is not null && (Source, Samples, Weight, Format) == (other.Source, other.Samples, other.Weight, other.Format)
        && Sorted(Columns).SequenceEqual(Sorted(other.Columns));

    public override int GetHashCode() => HashCode.Combine(Source, Samples, Weight, Format);

    private static IEnumerable<KeyValuePair<string, string>> Sorted(IReadOnlyDictionary<string, string>? columns) => (columns ?? new Dictionary<string, string>()).OrderBy(pair => pair.Key, StringComparer.Ordinal);

    [GeneratedRegex("^(.+)#([1-9][0-9]*)$", RegexOptions.Singleline)]
    private static partial Regex Sampled();
}

/// <summary>One source or several, in their order. In JSON: a source, or a list of them.</summary>
public sealed record DataSources(IReadOnlyList<DataSource> List)
{
    public static DataSources Of(string source) => new([DataSource.Parse(source)]);

    public bool Equals(DataSources? other) => other is not null && List.SequenceEqual(other.List);

    public override int GetHashCode() => List.Aggregate(0, HashCode.Combine);

    public override string ToString() => string.Join(", ", List);
}

/// <summary>What a file's name tells of its content.</summary>
internal static class DataNames
{
    private static readonly Dictionary<string, DataFormat> formats = new(StringComparer.OrdinalIgnoreCase)
    {
        [".jsonl"] = DataFormat.Jsonl,
        [".ndjson"] = DataFormat.Jsonl,
        [".json"] = DataFormat.Json,
        [".csv"] = DataFormat.Csv,
        [".tsv"] = DataFormat.Tsv,
        [".parquet"] = DataFormat.Parquet,
    };

    /// <summary>The format that a name ends in, behind <c>.gz</c>, <c>.br</c> or <c>.zst</c>; null when it says nothing.</summary>
    public static DataFormat? Format(string path) => formats.TryGetValue(Path.GetExtension(Compression(path) is null ? path : path[..^Path.GetExtension(path).Length]), out var format) ? format : null;

    /// <summary><c>.gz</c>, <c>.br</c>, <c>.zst</c>, or null.</summary>
    public static string? Compression(string path) => Path.GetExtension(path).ToLowerInvariant() is (".gz" or ".br" or ".zst") and var extension ? extension : null;

    /// <summary>Whether a name says that a file is an archive, or compressed otherwise.</summary>
    public static bool IsPacked(string path) =>
        Path.GetExtension(Compression(path) is null ? path : path[..^Path.GetExtension(path).Length]).ToLowerInvariant() is ".bz2" or ".xz" or ".lzma" or ".lz4" or ".zip" or ".7z" or ".rar" or ".tar" or ".tgz" or ".tbz" or ".txz";
}
