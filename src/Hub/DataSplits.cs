using System.Text.RegularExpressions;

namespace Memopt.Hub;

/// <summary>The splits of a data set by the names of its files, in the order of the datasets library of Python
/// (data_files.py): <c>data/SPLIT-00000-of-00001.…</c>; else train, validation and test as words of folders' names;
/// else of files' names; else all is train. Beyond it, where other splits have names and train has none, what names no
/// split is train.
/// </summary>
internal static partial class DataSplits
{
    /// <summary>Files by split.</summary>
    public static IReadOnlyDictionary<string, IReadOnlyList<string>> ByName(IEnumerable<string> files)
    {
        var rows = files
            .Where(file =>
                !file.Split('/').Any(part => part.StartsWith('.') || part.StartsWith("__", StringComparison.Ordinal))
            )
            .ToList();
        if (By(rows, Shard) is { Count: > 0 } shards)
            return shards;
        var splits = By(rows, file => Word(Folder(file)));
        if (splits.Count == 0)
            splits = By(rows, file => Word(Path.GetFileName(file)));
        var rest = rows.Where(file => Word(file) is null).ToList();
        if (!splits.ContainsKey("train") && rest.Count > 0)
            splits["train"] = rest;
        return splits;
    }

    private static Dictionary<string, IReadOnlyList<string>> By(
        IReadOnlyList<string> files,
        Func<string, string?> split
    ) =>
        files
            .GroupBy(split)
            .Where(one => one.Key is not null)
            .ToDictionary(one => one.Key!, one => (IReadOnlyList<string>)[.. one]);

    private static string? Shard(string file) =>
        Sharded().Match(file) is { Success: true } match ? match.Groups[1].Value : null;

    private static string Folder(string file) => file[..(file.LastIndexOf('/') + 1)];

    /// <summary>The first split that is a word of a text: letters between what is no letter.</summary>
    private static string? Word(string text)
    {
        var match = Words().Match(text);
        return !match.Success ? null
            : match.Groups["train"].Success ? "train"
            : match.Groups["test"].Success ? "test"
            : "validation";
    }

    [GeneratedRegex(@"^data/([^/]+)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*$")]
    private static partial Regex Sharded();

    [GeneratedRegex(
        @"(?<![^-._ 0-9/])(?:(?<train>train(?:ing)?)|"
            + @"(?<validation>validation|valid|dev|val)|(?<test>test(?:ing)?|eval(?:uation)?))(?=[-._ 0-9/])",
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant
    )]
    private static partial Regex Words();
}
