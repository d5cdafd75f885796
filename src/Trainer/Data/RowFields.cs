using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Data;

/// <summary>Values of a row's JSON, read as the type that a column must have; another type is a fault of the row.
/// </summary>
internal static class RowFields
{
    /// <summary>A string; any other value is a fault.</summary>
    public static string Text(JsonObject json, string key) => Text(json[key], key);

    /// <param name="node">The value.</param>
    /// <param name="name">Its name in the message of the fault.</param>
    public static string Text(JsonNode? node, string name)
    {
        try
        {
            return node is JsonValue value && value.TryGetValue<string>(out var text)
                ? text
                : throw new RowFault($"{name} is not a string");
        }
        catch (InvalidOperationException error)
        {
            throw new RowFault($"{name} is not valid text", error.Message); // half of a surrogate pair as an escape
        }
    }

    /// <summary>A list of integers, also as the JSON text of one; null when there is none.</summary>
    public static int[]? Integers(JsonObject json, string key)
    {
        if (json[key] is not { } node)
            return null;
        if (Unquoted(node) is not JsonArray array)
            throw new RowFault($"{key} is not a list of integers");
        return
        [
            .. array.Select(item =>
                item is JsonValue value && value.TryGetValue<int>(out var id)
                    ? id
                    : throw new RowFault($"{key} is not a list of integers", $"it holds {Shown(item)}")
            ),
        ];
    }

    /// <summary>
    /// A list of objects; in a table, or as TRL takes it, the JSON text of one. Null when there is none.
    /// </summary>
    public static JsonArray? Objects(JsonObject json, string key) =>
        Parsed(json[key]) switch
        {
            null => null,
            JsonArray list when list.All(item => item is JsonObject) => list,
            var other => throw new RowFault($"{key} is not a list of objects", $"it is {Shown(other)}"),
        };

    /// <summary>
    /// A value, or what a text holds as JSON; a text that is none stays one, and an empty one is nothing.
    /// </summary>
    public static JsonNode? Parsed(JsonNode? node)
    {
        if (node?.GetValueKind() != JsonValueKind.String)
            return node;
        try
        {
            return Text(node, "a value") is { } text && text.AsSpan().Trim().Length > 0 ? RowJson.Parse(text) : null;
        }
        catch (JsonException)
        {
            return node;
        }
    }

    /// <summary>A list that a table, which has only texts, holds as JSON.</summary>
    public static JsonNode? Unquoted(JsonNode? node)
    {
        if (
            node is not JsonValue value
            || !value.TryGetValue<string>(out var text)
            || !text.AsSpan().TrimStart().StartsWith("[")
        )
            return node;
        try
        {
            return RowJson.Parse(text);
        }
        catch (JsonException)
        {
            return node;
        }
    }

    /// <summary>The beginning of a value, for messages.</summary>
    public static string Shown(JsonNode? node) =>
        node?.ToJsonString() is { } text
            ? text.Length > 60
                ? $"{text[..60]}…"
                : text
            : "null";

    /// <summary>The names of a row's keys, for messages.</summary>
    public static string Keys(JsonObject json) =>
        json.Count == 0
            ? "it has no keys"
            : "it has "
                + string.Join(", ", json.Take(8).Select(pair => pair.Value is null ? $"{pair.Key} (null)" : pair.Key));
}
