namespace Memopt.Hub;

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

    /// <summary>The format that a name ends in, behind <c>.gz</c>, <c>.br</c> or <c>.zst</c>; null when it says
    /// nothing.</summary>
    public static DataFormat? Format(string path) =>
        formats.TryGetValue(
            Path.GetExtension(Compression(path) is null ? path : path[..^Path.GetExtension(path).Length]),
            out var format
        )
            ? format
            : null;

    /// <summary><c>.gz</c>, <c>.br</c>, <c>.zst</c>, or null.</summary>
    public static string? Compression(string path) =>
        Path.GetExtension(path).ToLowerInvariant() is (".gz" or ".br" or ".zst") and var extension ? extension : null;

    /// <summary>Whether a name says that a file is an archive, or compressed otherwise.</summary>
    public static bool IsPacked(string path) =>
        Path.GetExtension(Compression(path) is null ? path : path[..^Path.GetExtension(path).Length]).ToLowerInvariant()
            is ".bz2"
                or ".xz"
                or ".lzma"
                or ".lz4"
                or ".zip"
                or ".7z"
                or ".rar"
                or ".tar"
                or ".tgz"
                or ".tbz"
                or ".txz";
}
