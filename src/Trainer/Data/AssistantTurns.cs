using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data;

/// <summary>A stretch of a rendered chat that the assistant writes.</summary>
/// <param name="Start">Its first character.</param>
/// <param name="End">Behind its last.</param>
/// <param name="Whole">Whether it reaches to where the next turn begins, behind the mark that ends the turn.</param>
internal readonly record struct AssistantTurn(int Start, int End, bool Whole);

/// <summary>
/// Tells what the assistant writes in a chat: what the template marks as generated; else, turn by turn, the difference that
/// the turn makes to the rendered text. Nothing is ever looked for in the text, as a user may write anything in it.
/// </summary>
internal static class AssistantTurns
{
    public static IReadOnlyList<AssistantTurn> Of(ChatTemplate template, RenderedChat chat, IReadOnlyList<JsonObject> messages, JsonObject? variables)
    {
        if (chat.Generated.Count > 0) return [.. chat.Generated.Select(stretch => new AssistantTurn(stretch.Start, stretch.End, Whole: false))];
        var turns = new List<AssistantTurn>();
        for (var i = 0; i < messages.Count; i++)
        {
            if ((string?)messages[i]["role"] != "assistant") continue;
            // What stands there when the assistant is asked to begin is not its own.
            var head = template.Render([.. messages.Take(i)], addGenerationPrompt: true, variables);
            var turn = chat.Text.StartsWith(head, StringComparison.Ordinal)
                ? ByNextTurn(template, chat.Text, messages, i, head.Length, variables) ?? ByContent(template, chat.Text, messages, i, head.Length, variables)
                : null;
            turns.Add(turn ?? throw new UserFault($"where the assistant's turn (message {i + 1}) begins and ends cannot be told",
                "the chat template rewrites earlier text; mark the turn with {% generation %} in it, or set data.trainOn = all"));
        }
        return turns;
    }

    /// <summary>The turn ends where the chat would end with it.</summary>
    private static AssistantTurn? ByNextTurn(ChatTemplate template, string text, IReadOnlyList<JsonObject> messages, int at, int start, JsonObject? variables)
    {
        var upTo = at + 1 == messages.Count ? text : template.Render([.. messages.Take(at + 1)], addGenerationPrompt: false, variables);
        return upTo.Length >= start && text.StartsWith(upTo, StringComparison.Ordinal) ? new(start, upTo.Length, Whole: true) : null;
    }

    /// <summary>
    /// A template may write a turn otherwise once others follow it (without its thoughts, say). Then a turn that is longer,
    /// by a character or by one more call of a tool, shows where its end is: all before and all behind must stay as it was.
    /// </summary>
    private static AssistantTurn? ByContent(ChatTemplate template, string text, IReadOnlyList<JsonObject> messages, int at, int start, JsonObject? variables)
    {
        var longer = messages.Select(message => (JsonObject)message.DeepClone()).ToList();
        if (!Lengthen(longer[at]) || TryRender(template, longer, variables) is not { } other) return null;
        var end = text.AsSpan().CommonPrefixLength(other);
        return end >= start && other.Length > text.Length && other.AsSpan(end).EndsWith(text.AsSpan(end)) ? new(start, end, Whole: false) : null;
    }

    private static bool Lengthen(JsonObject turn)
    {
        if (turn["tool_calls"] is JsonArray { Count: > 0 } calls)
        {
            calls.Add(calls[^1]!.DeepClone());
            return true;
        }
        if (turn["content"] is not JsonValue value || !value.TryGetValue<string>(out var content)) return false;
        // A character that no template takes for space, nor for its own next one.
        turn["content"] = content + '\uE000';
        return true;
    }

    private static string? TryRender(ChatTemplate template, IReadOnlyList<JsonObject> messages, JsonObject? variables)
    {
        try
        {
            return template.Render(messages, addGenerationPrompt: false, variables);
        }
        catch (UserFault)
        {
            return null;   // it may take one call of a tool and not two
        }
    }
}
