using Memopt.Core;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Memopt.Hub;

/// <summary>One of the subsets of a data set.</summary>
/// <param name="Name">What people ask for it by.</param>
/// <param name="Folder">Where its files lie, with a slash at its end; empty for the whole data set.</param>
/// <param name="Splits">Globs by split; null where the files' names tell (<see cref="DataSplits"/>).</param>
/// <param name="Default">Whether it is meant when none is named.</param>
internal sealed record DataConfiguration(
    string Name,
    string Folder,
    IReadOnlyDictionary<string, IReadOnlyList<string>>? Splits,
    bool Default
)
{
    /// <summary>Of a data set whose card lists none.</summary>
    public static DataConfiguration Whole { get; } = new("default", "", null, true);
}

/// <summary>The YAML at the head of a data set's README.md: <c>configs</c> with <c>config_name</c>, <c>data_dir</c>,
/// <c>data_files</c> and <c>default</c>, as the datasets library of Python reads it.
/// </summary>
internal static class DataCard
{
    /// <summary>What a card lists, in its order; nothing when it lists none.</summary>
    /// <exception cref="UserFault">The card cannot be read.</exception>
    public static IReadOnlyList<DataConfiguration> Configurations(string card, string source)
    {
        var lines = card.ReplaceLineEndings("\n").Split('\n');
        var end = lines[0] == "---" ? Array.IndexOf(lines, "---", 1) : -1;
        if (end < 0)
            return [];
        try
        {
            var head = string.Join('\n', lines[1..end]);
            CheckDepth(new Parser(new StringReader(head)));
            var yaml = new YamlStream();
            yaml.Load(new StringReader(head));
            // Aliases make a short card stand for a long one.
            var budget = new Budget($"The card of {source}", TimeSpan.FromSeconds(5), 256 << 20);
            return
                yaml.Documents is [{ RootNode: YamlMappingNode root }]
                && root.Children.TryGetValue("configs", out var configs)
                ? [.. ((YamlSequenceNode)configs).Select(node => Read((YamlMappingNode)node, budget))]
                : [];
        }
        catch (Exception e)
            when (e
                    is YamlException
                        or InvalidCastException
                        or KeyNotFoundException
                        or InvalidOperationException
                        or /* a split named twice */
                        ArgumentException
            )
        {
            throw new UserFault(
                $"The card of {source} does not say which files are meant.",
                found: $"README.md: {e.Message.Split('\n')[0]}",
                next: "name the files, hf:org/name/data/train-*.parquet"
            );
        }
    }

    /// <summary>Refuses what is nested without reason: the tree is built by recursion, which would end the
    /// process.</summary>
    private static void CheckDepth(Parser events)
    {
        var depth = 0;
        while (events.MoveNext())
        {
            depth += events.Current!.NestingIncrease;
            if (depth > 100)
                throw new YamlException("it is nested too deeply");
        }
    }

    private static DataConfiguration Read(YamlMappingNode node, Budget budget)
    {
        budget.Spend(256);
        var name = Text(node, "config_name") ?? throw new KeyNotFoundException("a configuration has no config_name");
        var folder = Text(node, "data_dir")?.Trim('/');
        var splits = node.Children.TryGetValue("data_files", out var files) ? Splits(files, budget) : null;
        return new(
            name,
            folder is null or "" or "." ? "" : folder + "/",
            splits,
            name == "default" || Text(node, "default") is "true" or "True"
        );
    }

    // One path or some for train, or splits with the paths of each.
    private static Dictionary<string, IReadOnlyList<string>> Splits(YamlNode files, Budget budget) =>
        files is YamlSequenceNode list && list.Any(one => one is YamlMappingNode)
            ? list.Cast<YamlMappingNode>()
                .ToDictionary(
                    split => Text(split, "split") ?? throw new KeyNotFoundException("a split has no name"),
                    split => Paths(split["path"], budget)
                )
            : new() { ["train"] = Paths(files, budget) };

    private static IReadOnlyList<string> Paths(YamlNode node, Budget budget) =>
        [
            .. (node is YamlSequenceNode list ? list.Children : [node]).Select(path =>
            {
                budget.Spend(128);
                return Path(((YamlScalarNode)path).Value!);
            }),
        ];

    private static string Path(string path) => path.StartsWith("./", StringComparison.Ordinal) ? path[2..] : path;

    private static string? Text(YamlMappingNode node, string key) =>
        node.Children.TryGetValue(key, out var value) ? ((YamlScalarNode)value).Value : null;
}
