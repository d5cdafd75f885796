using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data.Chats;

/// <summary>ShareGPT's rows: <c>{"conversations": [{"from": "human", "value": "…"}]}</c>.</summary>
internal static class ShareGptTurns
{
    /// <summary>The turns as messages.</summary>
    public static List<JsonObject> Read(JsonObject json)
    {
        if (RowFields.Unquoted(json["conversations"]) is not JsonArray { Count: > 0 } turns)
            throw new RowFault("conversations is not a list with a turn in it");
        var messages = new JsonArray();
        foreach (var turn in turns)
            messages.Add(Message(turn, messages.Count + 1));
        return ChatMessages.Read(messages, "conversations");
    }

    private static JsonObject Message(JsonNode? turn, int number)
    {
        if (turn is not JsonObject said)
            throw new RowFault($"turn {number} is not an object");
        var (who, what) = said.ContainsKey("from") ? ("from", "value") : ("role", "content");
        var message = (JsonObject)said.DeepClone();
        foreach (var key in (string[])["from", "value"])
            message.Remove(key);
        var role = said[who] is null ? "" : RowFields.Text(said, who);
        message["role"] = Role(role) ?? (who == "role" ? role : throw Unknown(role, number));
        if (role == "function_call" && ToolCalls.Parse(RowFields.Text(said, what)) is { } calls)
            (message["content"], message["tool_calls"]) = (null, calls);
        else if (who == "from")
            message["content"] = RowFields.Text(said, what);
        return message;
    }

    /// <summary>A speaker's role in messages; null for an unknown one.</summary>
    private static string? Role(string speaker) =>
        speaker.ToLowerInvariant() switch
        {
            "human" or "user" => "user",
            "gpt" or "assistant" or "model" or "chatgpt" or "function_call" => "assistant",
            "system" => "system",
            "tool" or "observation" or "function_response" => "tool",
            _ => null,
        };

    private static RowFault Unknown(string speaker, int number) =>
        new(
            $"turn {number} is from \"{speaker}\"",
            "known are human, gpt, system, tool, function_call and observation"
        );
}
