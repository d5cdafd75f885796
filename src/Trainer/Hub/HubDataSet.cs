using System.Text.RegularExpressions;

namespace Memopt.Trainer.Hub;

/// <summary>A data set on the Hugging Face Hub as a user names it: <c>hf:org/name@revision/path</c>, the last two optional, the path a glob.</summary>
/// <param name="Id">org/name.</param>
/// <param name="Revision">Branch, tag or commit; null for the main branch.</param>
/// <param name="Path">Which of its files; null for those of the training split.</param>
public sealed partial record HubDataSet(string Id, string? Revision, string? Path)
{
    private static readonly string[] notRows = ["dataset_infos.json", "dataset_info.json", "state.json"];

    public override string ToString() => $"hf:{Id}{(Revision is null ? "" : $"@{Revision}")}{(Path is null ? "" : $"/{Path}")}";

    public static HubDataSet Parse(string source) => Form().Match(source) is { Success: true } match && !source.Split('/').Contains("..")
        ? new(match.Groups[1].Value, Value(match.Groups[2]), Value(match.Groups[3]))
        : throw new UserFault($"The data set \"{source}\" is not understood.", found: source, next: "write it as hf:org/name, hf:org/name@revision or hf:org/name/data/train-*.parquet");

    /// <summary>
    /// Of a data set's files those that are meant: what the path matches, else the rows of the training split, which is every file with
    /// "train" as a word in its path, or where there is none, every file that names no other split. Of several formats Parquet is taken.
    /// </summary>
    public IReadOnlyList<string> Choose(IEnumerable<string> files)
    {
        var rows = files.Where(file => DataNames.Format(file) is not null && !notRows.Contains(System.IO.Path.GetFileName(file))).Order(StringComparer.Ordinal).ToList();
        if (Path is not null)
        {
            var wanted = Glob.Of(Path);
            return [.. rows.Where(file => wanted.IsMatch(file) || file.StartsWith(Path.TrimEnd('/') + "/", StringComparison.Ordinal))];
        }
        var train = rows.Where(file => Words(file).Contains("train")).ToList();
        if (train.Count == 0)
            train = rows.Where(file => !Words(file).Any(word => word is "test" or "validation" or "valid" or "val" or "dev" or "eval")).ToList();
        var parquet = train.Where(file => DataNames.Format(file) == DataFormat.Parquet).ToList();
        return parquet.Count > 0 ? parquet : train;
    }

    private static IEnumerable<string> Words(string path) => path.ToLowerInvariant().Split(['/', '-', '_', '.', ' ']);

    private static string? Value(Group group) => group.Success ? group.Value : null;

    // The branches that the hub makes itself have slashes in their names.
    [GeneratedRegex(@"^hf:([A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@(refs/(?:convert|pr)/[\w.-]+|[\w.-]+))?(?:/(.+))?$", RegexOptions.ECMAScript)]
    private static partial Regex Form();
}
