using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data.Chats;

/// <summary>Messages of a chat as templates take them: each has a role, content that is a text, and calls of tools as
/// a list of objects.</summary>
internal static class ChatMessages
{
    public static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };

    /// <param name="node">A list of messages in any spelling that is known; it is not changed.</param>
    /// <param name="key">The list's name in the row, for messages of faults.</param>
    public static List<JsonObject> Read(JsonNode? node, string key)
    {
        if (node is not JsonArray { Count: > 0 } array)
            throw new RowFault($"{key} is not a list with a message in it");
        var messages = new List<JsonObject>();
        foreach (var item in array)
            messages.Add(Read(item, messages.Count + 1));
        return messages;
    }

    private static JsonObject Read(JsonNode? item, int number)
    {
        if (item is not JsonObject source)
            throw new RowFault($"message {number} is not an object");
        var message = (JsonObject)source.DeepClone();
        if (message["role"] is null || RowFields.Text(message, "role").Length == 0)
            throw new RowFault($"message {number} has no role");
        KnownKeys.Check(message, number);
        ToolCalls.Normalize(message, number);
        // Templates tell by a content that is none that a turn only calls tools (DeepSeek's).
        if (message["content"] is not null || message["tool_calls"] is not JsonArray { Count: > 0 })
            message["content"] = Content(message, number);
        return message;
    }

    private static string Content(JsonObject message, int number) =>
        message["content"] switch
        {
            null => "",
            JsonValue => RowFields.Text(message, "content"),
            JsonArray parts => string.Concat(
                parts.Select(part =>
                    part is JsonObject entry && RowFields.Text(entry["type"], "the type of a part") == "text"
                        ? RowFields.Text(entry, "text")
                        : throw new RowFault($"message {number} has content that is not text")
                )
            ),
            _ => throw new RowFault($"the content of message {number} is not text"),
        };
}
