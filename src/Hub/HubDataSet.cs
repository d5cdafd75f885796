using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>A data set on the Hugging Face Hub as a user names it: <c>hf:org/name:configuration:split@revision</c> or
/// <c>hf:org/name@revision/path</c>, all but the name optional, the path a glob.
/// </summary>
/// <param name="Id">org/name.</param>
/// <param name="Revision">Branch, tag or commit; null for the main branch.</param>
/// <param name="Path">Which of its files; null for those of a split.</param>
/// <param name="Configuration">Which of the subsets that its card lists; null for the default one.</param>
/// <param name="Split">Which split; null for <c>train</c>.</param>
public sealed partial record HubDataSet(
    string Id,
    string? Revision,
    string? Path,
    string? Configuration = null,
    string? Split = null
)
{
    /// <summary>How every name of a data set begins.</summary>
    public const string Prefix = "hf:";

    private static readonly string[] notRows =
    [
        "config.json",
        "dataset_dict.json",
        "dataset_infos.json",
        "dataset_info.json",
        "state.json",
    ];

    public override string ToString() =>
        $"{Named(Configuration, Split)}{(Revision is null ? "" : $"@{Revision}")}{(Path is null ? "" : $"/{Path}")}";

    public static HubDataSet Parse(string source) =>
        Form().Match(source) is { Success: true } match && !source.Split('/').Contains("..")
            ? new(
                match.Groups["id"].Value,
                Value(match.Groups["revision"]),
                Value(match.Groups["path"]),
                Value(match.Groups["configuration"]),
                Value(match.Groups["split"])
            )
            : throw new UserFault(
                $"The data set \"{source}\" is not understood.",
                found: source,
                next: "write it as hf:org/name, hf:org/name:configuration:split (each may be left out), either "
                    + "with @revision behind it, or hf:org/name/data/train-*.parquet"
            );

    /// <summary>Of a data set's files those that are meant: what the path matches, else those of the split by the data
    /// set's card, or where it says nothing, by their names (<see cref="DataSplits"/>). Of several formats Parquet is
    /// taken.
    /// </summary>
    /// <param name="files">All of them.</param>
    /// <param name="card">Text of its README.md; null when there is none.</param>
    /// <exception cref="UserFault">There is no such configuration or split, or there are several and none is
    /// named.</exception>
    public IReadOnlyList<string> Choose(IEnumerable<string> files, string? card = null)
    {
        var rows = files
            .Where(file => DataNames.Format(file) is not null && !notRows.Contains(System.IO.Path.GetFileName(file)))
            .Order(StringComparer.Ordinal)
            .ToList();
        if (Path is not null)
            return Matching(rows, Path, null);
        var configuration = Chosen(card is null ? [] : DataCard.Configurations(card, ToString()));
        var budget = new Budget($"The card of {this}", TimeSpan.FromSeconds(10), 256 << 20);
        var splits = configuration.Splits is { } named
            ? named.ToDictionary(
                split => split.Key,
                split =>
                    (IReadOnlyList<string>)
                        [
                            .. split
                                .Value.SelectMany(path => Matching(rows, path, budget, configuration.Folder))
                                .Distinct(),
                        ]
            )
            : DataSplits
                .ByName(
                    rows.Where(file => file.StartsWith(configuration.Folder, StringComparison.Ordinal))
                        .Select(file => file[configuration.Folder.Length..])
                )
                .ToDictionary(
                    split => split.Key,
                    split => (IReadOnlyList<string>)[.. split.Value.Select(file => configuration.Folder + file)]
                );
        if (splits.Count == 0)
            return [];
        if (!splits.TryGetValue(Split ?? "train", out var chosen))
        {
            throw new UserFault(
                $"{this} has no split \"{Split ?? "train"}\".",
                found: $"splits: {string.Join(", ", splits.Keys)}",
                next: $"name one of them, {Named(Configuration, splits.Keys.First())}"
            );
        }
        var parquet = chosen.Where(file => DataNames.Format(file) == DataFormat.Parquet).ToList();
        return parquet.Count > 0 ? parquet : chosen;
    }

    private DataConfiguration Chosen(IReadOnlyList<DataConfiguration> all)
    {
        if (Configuration is null)
        {
            if (all.Count <= 1 || all.Any(one => one.Default))
                return all.FirstOrDefault(one => one.Default) ?? all.SingleOrDefault() ?? DataConfiguration.Whole;
            throw new UserFault(
                $"{this} has several configurations and none is the default.",
                found: $"configurations: {string.Join(", ", all.Select(one => one.Name))}",
                next: $"name one of them, {Named(all[0].Name, Split)}"
            );
        }
        return all.FirstOrDefault(one => one.Name == Configuration)
            ?? throw new UserFault(
                $"{this} has no configuration \"{Configuration}\".",
                found: all.Count == 0
                    ? "its card lists none"
                    : $"configurations: {string.Join(", ", all.Select(one => one.Name))}",
                next: all.Count == 0
                    ? $"name its files, hf:{Id}/{Configuration}/*"
                    : $"name one of them, {Named(all[0].Name, Split)}"
            );
    }

    /// <summary>The files in a folder whose path from there matches a pattern, or that lie below it; the folder's own
    /// name is no pattern.</summary>
    private static IReadOnlyList<string> Matching(
        IReadOnlyList<string> files,
        string path,
        Budget? budget,
        string folder = ""
    )
    {
        var wanted = Glob.Of(path);
        budget?.Check();
        return
        [
            .. files.Where(file =>
            {
                budget?.Spend();
                return file.StartsWith(folder, StringComparison.Ordinal) && Meant(file[folder.Length..]);
            }),
        ];

        bool Meant(string file) =>
            wanted.IsMatch(file) || file.StartsWith(path.TrimEnd('/') + "/", StringComparison.Ordinal);
    }

    private string Named(string? configuration, string? split) =>
        $"hf:{Id}{(configuration is null && split is null ? "" : $":{configuration}")}"
        + $"{(split is null ? "" : $":{split}")}";

    private static string? Value(Group group) => group.Length > 0 ? group.Value : null;

    private const string At = /* the branches that the hub makes itself have slashes in their names */
        @"(?:@(?<revision>refs/(?:convert|pr)/[\w.-]+|[\w.-]+))?";

    [GeneratedRegex(
        @"^hf:(?<id>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)"
            + @"(?:(?::(?<configuration>[^:@/]+)|:(?<configuration>[^:@/]*):(?<split>[\w.]+))"
            + At
            + "|"
            + At
            + "(?:/(?<path>.+))?)$",
        RegexOptions.ECMAScript
    )]
    private static partial Regex Form();
}
