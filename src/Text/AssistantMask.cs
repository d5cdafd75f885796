using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Text;

/// <summary>Tells what the assistant writes in a chat: what the template marks as generated; else, turn by turn, the
/// difference that the turn makes to the rendered text. Nothing is ever looked for in the text, as a user may write
/// anything in it.
/// </summary>
/// <example>
/// A template writes <c>U:hi;A:yes;U:why;</c> for three messages, of which the second is the assistant's.
/// <code>
/// the first message and the prompt      U:hi;A:              so the turn begins at 7 (ByPrompt)
/// the first two messages                U:hi;A:yes;          so it ends at 11, behind its mark ";" (ByNextTurn)
/// the turn                              yes;
/// </code>
/// Had the template dropped "yes" from the first two messages, the chat with one more character in the turn,
/// <c>U:hi;A:yes□;U:why;</c>, would part from the text at 10, where the turn would end (ByContent).
/// </example>
internal sealed class AssistantMask
{
    // Each turn is found by renders of the chat, so that time grows with the square of the messages: at the limit some
    // 10 s.
    private const int MostMessages = 1024;

    private readonly ChatTemplate template;
    private readonly RenderedChat chat;
    private readonly IReadOnlyList<JsonObject> messages;
    private readonly JsonObject? variables;
    private readonly IReadOnlyList<bool>? asked;

    private AssistantMask(
        ChatTemplate template,
        RenderedChat chat,
        IReadOnlyList<JsonObject> messages,
        JsonObject? variables,
        IReadOnlyList<bool>? asked
    ) =>
        (this.template, this.chat, this.messages, this.variables, this.asked) = (
            template,
            chat,
            messages,
            variables,
            asked
        );

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
        var mask = new AssistantMask(template, chat, messages, variables, asked);
        return chat.Generated.Count > 0 ? mask.Marked() : mask.Found();
    }

    private string Text => chat.Text;

    private bool Said(int message) => (string?)messages[message]["role"] == "assistant";

    /// <summary>What the template marks as generated, without the turns that are not asked about.</summary>
    private IReadOnlyList<AssistantTurn> Marked()
    {
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

    /// <summary>How many stretches are marked in the chat's first messages. Those of a turn are what the chat up to it
    /// has more with it than without it.</summary>
    private int Stretches(int count) =>
        count == messages.Count ? chat.Generated.Count
        : Enumerable.Range(0, count).Any(Said)
            ? template.RenderMarked([.. messages.Take(count)], addGenerationPrompt: false, variables).Generated.Count
        : 0;

    private IReadOnlyList<AssistantTurn> Found()
    {
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
            turns.Add(
                Found(i)
                    ?? throw new UserFault(
                        $"the bounds of the assistant's turn (message {i + 1}) are ambiguous",
                        "the chat template rewrites previous text; mark the turn with {% generation %} in it, or "
                            + "set data.trainOn = all"
                    )
            );
        }
        return turns;
    }

    private AssistantTurn? Found(int at) =>
        (ByPrompt(at) ?? ByOtherTurn(at)) is { } start ? ByNextTurn(at, start) ?? ByContent(at, start) : null;

    /// <summary>The turn begins behind what the template writes to ask for it: that is not the assistant's
    /// own.</summary>
    private int? ByPrompt(int at) =>
        TryRender([.. messages.Take(at)], prompt: true) is { } head && Text.StartsWith(head, StringComparison.Ordinal)
            ? head.Length
            : null;

    /// <summary>A template may ask for more than previous turns then have (DeepSeek's and QwQ's begin a thought), or
    /// write the system turn into whichever turn is last (Mistral's). Then the turn begins where the chat parts from
    /// one in which a single character that is nowhere else is said there: in the same place of the whole chat, or at
    /// the end of a shorter one if what follows answers a call of a tool.
    /// </summary>
    private int? ByOtherTurn(int at)
    {
        var used = Text.ToHashSet();
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
            var start = Text.AsSpan().CommonPrefixLength(other);
            return
                at == 0 || Saying(messages, at - 1, mark) is { } before && before.AsSpan().EndsWith(Text.AsSpan(start))
                ? start
                : null;
        }

        string? Saying(IReadOnlyList<JsonObject> chat, int where, string content) =>
            TryRender([
                .. chat.Select(
                    (message, index) =>
                        index == where
                            ? new() { ["role"] = message["role"]?.DeepClone(), ["content"] = content }
                            : message
                ),
            ]);
    }

    /// <summary>The turn ends where the chat would end with it.</summary>
    private AssistantTurn? ByNextTurn(int at, int start)
    {
        var upTo = at + 1 == messages.Count ? Text : TryRender([.. messages.Take(at + 1)]);
        return upTo?.Length >= start && Text.StartsWith(upTo, StringComparison.Ordinal)
            ? new(start, upTo.Length, Whole: true)
            : null;
    }

    /// <summary>A template may write a turn otherwise once others follow it (without its thoughts, say). Then a turn
    /// that is longer, by a character or by one more call of a tool, shows where its end is: all before and all behind
    /// must stay as it was.
    /// </summary>
    private AssistantTurn? ByContent(int at, int start)
    {
        var longer = messages.Select(message => (JsonObject)message.DeepClone()).ToList();
        if (!Lengthen(longer[at]) || TryRender(longer) is not { } other)
            return null;
        var end = Text.AsSpan().CommonPrefixLength(other);
        return end >= start && other.Length > Text.Length && other.AsSpan(end).EndsWith(Text.AsSpan(end))
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

    private string? TryRender(IReadOnlyList<JsonObject> messages, bool prompt = false)
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
