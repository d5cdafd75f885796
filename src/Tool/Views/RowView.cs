using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Data;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>A row as tokens.</summary>
internal sealed record RowView(int Line, string? Answer, IReadOnlyList<TokenView> Tokens)
{
    /// <param name="row">The row.</param>
    /// <param name="model">Whose tokens they are; ids stand for themselves when it has no tokenizer.</param>
    /// <param name="answer">Which of a pair's answers it is.</param>
    public static RowView Of(Row row, ChatEncoder model, string? answer = null)
    {
        Tokenizer? tokenizer;
        try
        {
            tokenizer = model.Tokenizer;
        }
        catch (UserFault)
        {
            tokenizer = null;
        }
        // A character of several tokens shows at the last of them.
        var stream = tokenizer is null ? null : new TokenStream(tokenizer, skipSpecial: false);
        var tokens = row
            .Ids.Select(
                (id, at) => new TokenView(id, stream?.Add(id) ?? $"{id} ", at > 0 && row.Labels[at] != Row.NoLoss)
            )
            .ToList();
        if (stream?.End() is { Length: > 0 } rest)
            tokens[^1] = tokens[^1] with { Text = tokens[^1].Text + rest };
        return new(row.Line, answer, tokens);
    }
}
