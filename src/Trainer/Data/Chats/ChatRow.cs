using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Data.Chats;

/// <summary>A chat before it is tokens: its messages, the variables of its template, and which messages may carry
/// loss.</summary>
internal sealed class ChatRow
{
    private readonly ChatTemplate template;
    private readonly TrainOn trainOn;
    private readonly List<JsonObject> messages;
    private readonly JsonObject variables;
    private readonly List<bool> asked;

    /// <param name="template">The model's.</param>
    /// <param name="trainOn">Which tokens carry loss.</param>
    /// <param name="messages">The chat; its messages are changed.</param>
    /// <param name="json">The row, for what is beside the messages.</param>
    /// <param name="from">The first message that may carry loss.</param>
    public ChatRow(ChatTemplate template, TrainOn trainOn, List<JsonObject> messages, JsonObject json, int from)
    {
        (this.template, this.trainOn, this.messages) = (template, trainOn, messages);
        asked = [.. messages.Select((message, at) => TurnLoss.Take(message, at + 1, trainOn) && at >= from)];
        if (
            ChatVariables.SystemPrompt(json) is { } system
            && (string?)messages[0]["role"] is not ("system" or "developer")
        )
        {
            messages.Insert(0, ChatMessages.Message("system", system));
            asked.Insert(0, false);
        }
        variables = ChatVariables.Of(json);
    }

    /// <summary>Notes the keys of messages and the variables that the template does not write.</summary>
    public void NoteUnwritten(Remarks remarks)
    {
        foreach (var (key, value) in messages.SelectMany(message => message).Concat(variables))
        {
            if (key is not ("role" or "content") && KnownKeys.Given(value) && !template.Mentions(key))
                remarks.Unwritten(key);
        }
    }

    /// <summary>The chat as the template writes it, and the turns in it that carry loss; none when all of it does.
    /// </summary>
    /// <exception cref="RowFault">The template does not take this chat, or writes nothing of an answer.</exception>
    public (RenderedChat Chat, IReadOnlyList<AssistantTurn> Turns) Render()
    {
        (RenderedChat, IReadOnlyList<AssistantTurn>) rendered;
        try
        {
            rendered = RenderTurns();
        }
        catch (UserFault fault) when (!fault.OverBudget)
        {
            throw Explained(fault);
        }
        if (trainOn == TrainOn.Assistant && messages.Where((_, at) => asked[at]).FirstOrDefault(IsEmpty) is { } empty)
            throw new RowFault(
                $"message {messages.IndexOf(empty) + 1} only calls tools, and the model's chat template does not "
                    + "write calls",
                "an empty answer would be trained"
            );
        return rendered;
    }

    private (RenderedChat, IReadOnlyList<AssistantTurn>) RenderTurns()
    {
        var chat = RenderText();
        return (chat, trainOn == TrainOn.All ? [] : AssistantMask.Of(template, chat, messages, variables, asked));
    }

    private RenderedChat RenderText()
    {
        try
        {
            var chat = template.RenderMarked(messages, addGenerationPrompt: false, variables);
            if (!ToolCalls.UnquoteArguments(messages, chat.Text))
                return chat;
        }
        catch (UserFault) when (ToolCalls.UnquoteArguments(messages, null))
        {
            // A template that goes through the arguments takes no text.
        }
        return template.RenderMarked(messages, addGenerationPrompt: false, variables);
    }

    /// <summary>Whether the template writes nothing of what the assistant does in a message.</summary>
    private bool IsEmpty(JsonObject message) =>
        (string?)message["role"] == "assistant"
        && !KnownKeys.Given(message["content"])
        && KnownKeys.Given(message["tool_calls"])
        && !template.Mentions("tool_calls");

    private RowFault Explained(UserFault fault) =>
        FirstWithoutContent() switch
        {
            (var bare, true) => new(
                $"message {bare + 1} has no content and the model's chat template needs one",
                "write \"content\": \"\" where a turn only calls tools"
            ),
            (var bare, false) => new(
                $"message {bare + 1} only calls tools, and the model's chat template does not take that",
                fault.Found
            ),
            null => new(fault.Message.TrimEnd('.'), fault.Found),
        };

    /// <summary>The first message without content, when the chat is taken once all have one; and whether its calls of
    /// tools are written then.</summary>
    private (int At, bool Called)? FirstWithoutContent()
    {
        var bare = messages.FindIndex(message => message["content"] is null);
        if (bare < 0)
            return null;
        foreach (var message in messages)
            message["content"] ??= "";
        try
        {
            var (chat, _) = RenderTurns();
            messages[bare].Remove("tool_calls");
            return (bare, template.Render(messages, addGenerationPrompt: false, variables) != chat.Text);
        }
        catch (UserFault fault) when (!fault.OverBudget)
        {
            return null;
        }
    }
}
