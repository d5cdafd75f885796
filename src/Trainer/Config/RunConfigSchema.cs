using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Hub;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config;

/// <summary>The JSON Schema of memopt.json, from the record, so that editors complete and check what the tool
/// reads.</summary>
internal static class RunConfigSchema
{
    private static readonly JsonSerializerOptions indented = new()
    {
        WriteIndented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>Draft 2020-12.</summary>
    public static string Generate()
    {
        var defaults = new RunConfig();
        var sections = SettingProperties
            .Of(typeof(RunConfig))
            .Select(section =>
                KeyValuePair.Create(
                    SettingProperties.Key(section),
                    (JsonNode?)
                        new JsonObject
                        {
                            ["type"] = "object",
                            ["description"] = section.GetCustomAttribute<DescriptionAttribute>()!.Description,
                            ["additionalProperties"] = false,
                            ["properties"] = new JsonObject(
                                SettingProperties
                                    .Of(section.PropertyType)
                                    .Select(setting =>
                                        KeyValuePair.Create(
                                            SettingProperties.Key(setting),
                                            (JsonNode?)Setting(setting, setting.GetValue(section.GetValue(defaults)))
                                        )
                                    )
                            ),
                        }
                )
            );
        var schema = new JsonObject
        {
            ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
            ["title"] = "memopt.json",
            ["description"] = "A fine-tune: model, data, adapter, memory, training, checkpoints, tracking.",
            ["type"] = "object",
            ["additionalProperties"] = false,
            ["properties"] = new JsonObject([
                KeyValuePair.Create("$schema", (JsonNode?)new JsonObject { ["type"] = "string" }),
                .. sections,
            ]),
        };
        return schema.ToJsonString(indented) + "\n";
    }

    private static JsonObject Setting(PropertyInfo setting, object? value)
    {
        var type = Nullable.GetUnderlyingType(setting.PropertyType) ?? setting.PropertyType;
        var optional = value is null;
        var unit = setting.GetCustomAttribute<UnitAttribute>() is { } u ? $" ({u.Unit})" : "";
        var node = new JsonObject
        {
            ["description"] = setting.GetCustomAttribute<DescriptionAttribute>()!.Description + unit,
        };
        if (type.IsEnum)
            node["enum"] = new JsonArray([.. EnumNames.Values(type).Keys.Select(name => (JsonNode)name)]);
        else if (type == typeof(Targets))
            node["anyOf"] = new JsonArray(
                new JsonObject { ["const"] = "all-linear" },
                new JsonObject
                {
                    ["type"] = "array",
                    ["minItems"] = 1,
                    ["items"] = new JsonObject { ["type"] = "string" },
                }
            );
        else if (type == typeof(DataSources))
            node["anyOf"] = new JsonArray([
                Text(),
                Source(),
                new JsonObject
                {
                    ["type"] = "array",
                    ["minItems"] = 1,
                    ["items"] = new JsonObject { ["anyOf"] = new JsonArray(Text(), Source()) },
                },
                .. optional ? (JsonNode[])[new JsonObject { ["type"] = "null" }] : [],
            ]);
        else if (type == typeof(IReadOnlyList<double>))
            (node["type"], node["items"], node["minItems"], node["maxItems"]) = (
                "array",
                new JsonObject { ["type"] = "number" },
                2,
                2
            );
        else if (type.IsGenericType)
            (node["type"], node["additionalProperties"]) = (
                "object",
                new JsonObject { ["type"] = Name(type.GetGenericArguments()[1]) }
            );
        else
            node["type"] = optional ? new JsonArray(Name(type), "null") : Name(type);
        if (setting.GetCustomAttribute<RangeAttribute>() is { } range)
            (node["minimum"], node["maximum"]) = (
                JsonSerializer.SerializeToNode(range.Minimum),
                JsonSerializer.SerializeToNode(range.Maximum)
            );
        if (!optional)
            node["default"] = ConfigWriter.Node(value);
        return node;
    }

    private static JsonObject Text() => new() { ["type"] = "string" };

    private static JsonObject Source() =>
        new()
        {
            ["type"] = "object",
            ["required"] = new JsonArray("source"),
            ["additionalProperties"] = false,
            ["properties"] = new JsonObject
            {
                ["source"] = new JsonObject
                {
                    ["type"] = "string",
                    ["description"] =
                        "File, folder, glob or hf:org/name (:configuration:split); a suffix '#N' takes N rows.",
                },
                ["weight"] = new JsonObject
                {
                    ["type"] = "number",
                    ["description"] = "Number of times that a row comes in an epoch.",
                    ["exclusiveMinimum"] = 0,
                    ["maximum"] = 1000,
                    ["default"] = 1,
                },
                ["columns"] = new JsonObject
                {
                    ["type"] = "object",
                    ["description"] =
                        "Renames columns, {\"name in a row\": \"name in the file\"}: {\"prompt\": \"question\"}.",
                    ["additionalProperties"] = Text(),
                },
                ["format"] = new JsonObject
                {
                    ["description"] = "Format of the files; by default it follows from their names.",
                    ["enum"] = new JsonArray([
                        .. EnumNames.Values(typeof(DataFormat)).Keys.Select(name => (JsonNode)name),
                    ]),
                },
            },
        };

    private static string Name(Type type) =>
        type == typeof(string) ? "string"
        : type == typeof(bool) ? "boolean"
        : type == typeof(int) ? "integer"
        : "number";
}
