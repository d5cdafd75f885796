using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data;

/// <summary>The columns of a source that have names of their own, and the names that rows have for them.</summary>
/// <param name="columns">The source's columns by the names they are to have.</param>
internal sealed class RowColumns(IReadOnlyDictionary<string, string> columns)
{
    /// <summary>The keys of a row that are taken; who takes the preferred answer leaves the other.</summary>
    public IReadOnlyList<string> Taken { get; } =
    [
        .. columns
            .Values.Select(column => column.Split('.')[0])
            .SelectMany(column => column == "chosen" ? new[] { column, "rejected" } : [column]),
    ];

    /// <summary>The row with its columns under the names they are to have; a name with dots leads into an
    /// object.</summary>
    public JsonObject Rename(JsonObject json)
    {
        var values = columns.Select(pair => (pair.Key, Value: Find(json, pair.Value))).ToList();
        foreach (var column in columns.Values)
            json.Remove(column);
        foreach (var (name, value) in values)
            json[name] = value?.DeepClone();
        return json;
    }

    private static JsonNode? Find(JsonObject json, string column)
    {
        if (json.TryGetPropertyValue(column, out var value))
            return value;
        JsonNode? node = json;
        foreach (var part in column.Split('.'))
            node =
                node is JsonObject inner && inner.TryGetPropertyValue(part, out var next)
                    ? next
                    : throw new RowFault($"there is no column \"{column}\"", RowFields.Keys(json));
        return node;
    }
}
