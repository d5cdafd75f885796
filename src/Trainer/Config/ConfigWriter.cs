using System.Collections;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config;

/// <summary>Settings as JSON, in the order of their declaration.</summary>
internal static class ConfigWriter
{
    private static readonly JsonSerializerOptions indented = new() { WriteIndented = true };

    public static JsonObject Write(RunConfig config) => Write(config, _ => true);

    /// <summary>The settings that are asked for, in all sections.</summary>
    public static JsonObject Write(RunConfig config, Func<Setting, bool> written) =>
        new(
            Setting
                .All.GroupBy(setting => SettingProperties.Key(setting.Section))
                .Select(section =>
                    KeyValuePair.Create(
                        section.Key,
                        (JsonNode?)
                            new JsonObject(
                                section
                                    .Where(written)
                                    .Select(setting =>
                                        KeyValuePair.Create(
                                            SettingProperties.Key(setting.Property),
                                            Node(setting.Value(config))
                                        )
                                    )
                            )
                    )
                )
        );

    /// <summary>As a file has them: a setting a line.</summary>
    public static string Indented(RunConfig config) => Write(config).ToJsonString(indented);

    /// <summary>Every setting by its dotted key.</summary>
    public static Dictionary<string, string> Flat(RunConfig config) => Flat(Write(config));

    public static Dictionary<string, string> Flat(JsonNode root)
    {
        var flat = new Dictionary<string, string>();
        foreach (var (section, settings) in root.AsObject())
        {
            foreach (var (key, value) in settings!.AsObject())
                flat[$"{section}.{key}"] = value?.ToJsonString() ?? "null";
        }
        return flat;
    }

    /// <summary>The value of a setting.</summary>
    public static JsonNode? Node(object? value) =>
        value switch
        {
            null => null,
            Enum e => EnumNames.Spelling(e),
            Targets { All: true } => "all-linear",
            Targets targets => new JsonArray([.. targets.Names.Select(name => (JsonNode)name)]),
            DataSources { List: [var one] } => Node(one),
            DataSources sources => new JsonArray([.. sources.List.Select(Node)]),
            DataSource { Weight: 1, Columns: null, Format: null } source => source.ToString(),
            DataSource source => Source(source),
            string text => text,
            bool flag => flag,
            int number => number,
            double number => number == Math.Floor(number) && Math.Abs(number) < 1e15 ? (JsonNode)(long)number : number,
            // The order of patterns decides which one counts; that of labels decides nothing.
            IReadOnlyDictionary<string, int> ranks => Map(ranks),
            IReadOnlyDictionary<string, double> alphas => Map(alphas),
            IReadOnlyDictionary<string, string> labels => Map(labels.OrderBy(pair => pair.Key, StringComparer.Ordinal)),
            IEnumerable list => new JsonArray([.. list.Cast<object>().Select(Node)]),
            _ => throw new InvalidOperationException($"no JSON for {value.GetType()}"),
        };

    private static JsonObject Map<T>(IEnumerable<KeyValuePair<string, T>> pairs) =>
        new(pairs.Select(pair => KeyValuePair.Create(pair.Key, Node(pair.Value))));

    private static JsonObject Source(DataSource source) =>
        new(
            new KeyValuePair<string, JsonNode?>[]
            {
                new("source", source.ToString()),
                new("weight", Node(source.Weight)),
                new("columns", Node(source.Columns)),
                new("format", Node(source.Format)),
            }.Where(pair => pair.Value is not null)
        );
}
