using Microsoft.Extensions.AI;

namespace Memopt;

/// <summary>The updates of one answer, which share its id and time.</summary>
internal sealed class AnswerUpdates(string? model)
{
    private readonly string id = Guid.NewGuid().ToString("N");
    private readonly DateTimeOffset created = TimeProvider.System.GetUtcNow();

    public ChatResponseUpdate Piece(string text) => Update(new TextContent(text));

    /// <param name="promptTokens">Tokens that were read.</param>
    /// <param name="answerTokens">Tokens that were made.</param>
    /// <param name="cut">Whether the answer would have gone on.</param>
    public ChatResponseUpdate Last(int promptTokens, int answerTokens, bool cut)
    {
        var update = Update(
            new UsageContent(
                new()
                {
                    InputTokenCount = promptTokens,
                    OutputTokenCount = answerTokens,
                    TotalTokenCount = promptTokens + answerTokens,
                }
            )
        );
        update.FinishReason = cut ? ChatFinishReason.Length : ChatFinishReason.Stop;
        return update;
    }

    private ChatResponseUpdate Update(AIContent content) =>
        new(ChatRole.Assistant, [content])
        {
            ResponseId = id,
            MessageId = id,
            ModelId = model,
            CreatedAt = created,
        };
}
