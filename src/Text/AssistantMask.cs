using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Text;

/// <summary>A stretch of a rendered chat that the assistant writes.</summary>
/// <param name="Start">Its first character.</param>
/// <param name="End">Behind its last.</param>
/// <param name="Whole">Whether it reaches to where the next turn begins, behind the mark that ends the turn.</param>
internal readonly record struct AssistantTurn(int Start, int End, bool Whole);

/// <summary>Tells what the assistant writes in a chat: what the template marks as generated; else, turn by turn, the
/// difference that the turn makes to the rendered text. Nothing is ever looked for in the text, as a user may write
/// anything in it.
/// </summary>
internal static class AssistantMask
{
    // Each turn is found by renders of the chat, so that time grows with the square of the messages: at the limit some
    // 10 s.
    private const int MostMessages = 1024;

    /// <param name="template">The model's.</param>
    /// <param name="chat">What it makes of the messages.</param>
    /// <param name="messages">The chat.</param>
    /// <param name="variables">What the template was given with them.</param>
    /// <param name="asked">Which messages are asked about; null asks about all.</param>
    public static IReadOnlyList<AssistantTurn> Of(
        ChatTemplate template,
        RenderedChat chat,
        IReadOnlyList<JsonObject> messages,
        JsonObject? variables,
        IReadOnlyList<bool>? asked = null
    )
    {
        bool Said(int message) => (string?)messages[message]["role"] == "assistant";
        if (chat.Generated.Count > 0)
        {
            // The stretches of a turn are those that the chat up to it has more of with it than without it.
            int Stretches(int count) =>
                count == messages.Count ? chat.Generated.Count
                : Enumerable.Range(0, count).Any(Said)
                    ? template
                        .RenderMarked([.. messages.Take(count)], addGenerationPrompt: false, variables)
                        .Generated.Count
                : 0;
            var others = new HashSet<int>();
            foreach (
                var message in Enumerable
                    .Range(0, messages.Count)
                    .Where(message => Said(message) && asked?[message] == false)
            )
            {
                var (first, behind) = (Stretches(message), Stretches(message + 1));
                others.UnionWith(Enumerable.Range(first, Math.Max(0, behind - first)));
            }
            return
            [
                .. chat
                    .Generated.Where((_, at) => !others.Contains(at))
                    .Select(stretch => new AssistantTurn(stretch.Start, stretch.End, Whole: false)),
            ];
        }
        if (messages.Count > MostMessages)
            throw new UserFault(
                $"where the assistant's turns begin and end is not looked for in a chat of {messages.Count:N0} "
                    + "messages",
                $"the limit is {MostMessages:N0}; mark the turn with {{% generation %}} in the chat template, or "
                    + "set data.trainOn = all"
            );
        var turns = new List<AssistantTurn>();
        for (var i = 0; i < messages.Count; i++)
        {
            if (!Said(i) || asked?[i] == false)
                continue;
            var turn = (
                ByPrompt(template, chat.Text, messages, i, variables)
                ?? ByOtherTurn(template, chat.Text, messages, i, variables)
            )
                is { } start
                ? ByNextTurn(template, chat.Text, messages, i, start, variables)
                    ?? ByContent(template, chat.Text, messages, i, start, variables)
                : null;
            turns.Add(
                turn
                    ?? throw new UserFault(
                        $"where the assistant's turn (message {i + 1}) begins and ends cannot be told",
                        "the chat template rewrites earlier text; mark the turn with {% generation %} in it, or "
                            + "set data.trainOn = all"
                    )
            );
        }
        return turns;
    }

    /// <summary>The turn begins behind what the template writes to ask for it: that is not the assistant's
    /// own.</summary>
    private static int? ByPrompt(
        ChatTemplate template,
        string text,
        IReadOnlyList<JsonObject> messages,
        int at,
        JsonObject? variables
    ) =>
        TryRender(template, [.. messages.Take(at)], variables, prompt: true) is { } head
        && text.StartsWith(head, StringComparison.Ordinal)
            ? head.Length
            : null;

    /// <summary>A template may ask for more than earlier turns then have (DeepSeek's and QwQ's begin a thought), or
    /// write the system turn into whichever turn is last (Mistral's). Then the turn begins where the chat parts from
    /// one in which a single character that is nowhere else is said there: in the same place of the whole chat, or at
    /// the end of a shorter one if what follows answers a call of a tool.
    /// </summary>
    private static int? ByOtherTurn(
        ChatTemplate template,
        string text,
        IReadOnlyList<JsonObject> messages,
        int at,
        JsonObject? variables
    )
    {
        var used = text.ToHashSet();
        var spare = Enumerable.Range(0xE000, 0x1900).Select(code => (char)code);
        var mark = spare.FirstOrDefault(code => !used.Contains(code)).ToString();
        return Parting(messages) ?? Parting([.. messages.Take(at + 1)]);

        int? Parting(IReadOnlyList<JsonObject> chat)
        {
            if (Saying(chat, at, mark) is not { } other || Saying(chat, at, mark + mark) is not { } longer)
                return null;
            // It must be printed once, and nothing else may depend on it.
            var said = other.IndexOf(mark, StringComparison.Ordinal);
            if (said < 0 || other.Insert(said, mark) != longer)
                return null;
            // What is said before must stand before it.
            var start = text.AsSpan().CommonPrefixLength(other);
            return
                at == 0
                || Saying(messages, at - 1, mark) is { } earlier && earlier.AsSpan().EndsWith(text.AsSpan(start))
                ? start
                : null;
        }

        string? Saying(IReadOnlyList<JsonObject> chat, int where, string content) =>
            TryRender(
                template,
                [
                    .. chat.Select(
                        (message, index) =>
                            index == where
                                ? new() { ["role"] = message["role"]?.DeepClone(), ["content"] = content }
                                : message
                    ),
                ],
                variables
            );
    }

    /// <summary>The turn ends where the chat would end with it.</summary>
    private static AssistantTurn? ByNextTurn(
        ChatTemplate template,
        string text,
        IReadOnlyList<JsonObject> messages,
        int at,
        int start,
        JsonObject? variables
    )
    {
        var upTo = at + 1 == messages.Count ? text : TryRender(template, [.. messages.Take(at + 1)], variables);
        return upTo?.Length >= start && text.StartsWith(upTo, StringComparison.Ordinal)
            ? new(start, upTo.Length, Whole: true)
            : null;
    }

    /// <summary>A template may write a turn otherwise once others follow it (without its thoughts, say). Then a turn
    /// that is longer, by a character or by one more call of a tool, shows where its end is: all before and all behind
    /// must stay as it was.
    /// </summary>
    private static AssistantTurn? ByContent(
        ChatTemplate template,
        string text,
        IReadOnlyList<JsonObject> messages,
        int at,
        int start,
        JsonObject? variables
    )
    {
        var longer = messages.Select(message => (JsonObject)message.DeepClone()).ToList();
        if (!Lengthen(longer[at]) || TryRender(template, longer, variables) is not { } other)
            return null;
        var end = text.AsSpan().CommonPrefixLength(other);
        return end >= start && other.Length > text.Length && other.AsSpan(end).EndsWith(text.AsSpan(end))
            ? new(start, end, Whole: false)
            : null;
    }

    private static bool Lengthen(JsonObject turn)
    {
        if (turn["tool_calls"] is JsonArray { Count: > 0 } calls)
        {
            calls.Add(calls[^1]!.DeepClone());
            return true;
        }
        if (turn["content"] is not JsonValue value || !value.TryGetValue<string>(out var content))
            return false;
        // A character that no template takes for space, nor for its own next one.
        turn["content"] = content + '\uE000';
        return true;
    }

    private static string? TryRender(
        ChatTemplate template,
        IReadOnlyList<JsonObject> messages,
        JsonObject? variables,
        bool prompt = false
    )
    {
        try
        {
            return template.Render(messages, prompt, variables);
        }
        catch (UserFault fault) when (!fault.OverBudget)
        {
            return null; // it may take one call of a tool and not two, or no chat without a turn
        }
    }
}
