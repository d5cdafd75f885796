using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Data.Chats;

/// <summary>Calls of tools in messages, in the spellings of OpenAI, ShareGPT and tables.</summary>
internal static class ToolCalls
{
    private static readonly JsonSerializerOptions relaxed = new() { Encoder = JsonText.Encoder };

    /// <summary>The calls of tools that a text is, {"name", "arguments"} or a list of these, as messages have them;
    /// null when it is none.</summary>
    public static JsonArray? Parse(string text)
    {
        try
        {
            var json = RowJson.Parse(text);
            var calls = json is JsonArray list ? [.. list] : new[] { json };
            return calls.Length > 0 && calls.All(call => call is JsonObject named && named.ContainsKey("name"))
                ? new([
                    .. calls.Select(call => new JsonObject { ["type"] = "function", ["function"] = call!.DeepClone() }),
                ])
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>
    /// A message's calls of tools as a list of objects, also of what OpenAI's functions were before tools and of a
    /// table's text.
    /// </summary>
    public static void Normalize(JsonObject message, int number)
    {
        if (
            RowFields.Parsed(message["tool_calls"]) is var calls
            && KnownKeys.Given(calls)
            && !(calls is JsonArray list && list.All(call => call is JsonObject))
        )
            throw new RowFault(
                $"tool_calls of message {number} is not a list of objects",
                $"it is {RowFields.Shown(calls)}"
            );
        if (message.ContainsKey("tool_calls") && calls?.Parent is null)
            message["tool_calls"] = calls;
        if ((string?)message["role"] == "function")
            message["role"] = "tool";
        if (!message.Remove("function_call", out var old) || !KnownKeys.Given(old))
            return;
        if (KnownKeys.Given(calls))
            throw new RowFault($"message {number} has tool_calls and function_call", "keep tool_calls");
        message["tool_calls"] =
            Parse(
                old!.GetValueKind() == JsonValueKind.String ? RowFields.Text(old, "function_call") : old.ToJsonString()
            )
            ?? throw new RowFault(
                $"function_call of message {number} is not an object with a name",
                $"it is {RowFields.Shown(old)}"
            );
    }

    /// <summary>
    /// OpenAI's arguments of a call are the text of an object. A template that writes arguments as JSON would write
    /// that text in quotes: it is given the object.
    /// </summary>
    /// <param name="messages">Whose arguments are changed.</param>
    /// <param name="written">What the template makes of them as they are; null when it does not take them.</param>
    /// <returns>Whether any was changed.</returns>
    public static bool UnquoteArguments(List<JsonObject> messages, string? written)
    {
        var changed = false;
        foreach (
            var call in messages.SelectMany(message => message["tool_calls"] as JsonArray ?? []).OfType<JsonObject>()
        )
        {
            var function = call["function"] as JsonObject ?? call;
            if (
                function["arguments"] is not { } text
                || text.GetValueKind() != JsonValueKind.String
                || RowFields.Parsed(text) is not JsonObject said
            )
                continue;
            if (written?.Contains(text.ToJsonString(relaxed), StringComparison.Ordinal) == false)
                continue;
            (function["arguments"], changed) = (said, true);
        }
        return changed;
    }
}
