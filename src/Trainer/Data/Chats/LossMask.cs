using Memopt.Text;

namespace Memopt.Trainer.Data.Chats;

/// <summary>Which tokens of a chat carry loss.</summary>
/// <param name="spans">The chat's tokens, in the order of its text.</param>
/// <param name="endOfTurn">The tokens that end a turn.</param>
internal sealed class LossMask(IReadOnlyList<TokenSpan> spans, IReadOnlySet<int> endOfTurn)
{
    private readonly bool[] trained = new bool[spans.Count];

    /// <summary>Of each token, whether it carries loss.</summary>
    public IReadOnlyList<bool> Trained => trained;

    /// <summary>Marks the tokens of a turn, with its end-of-turn token and without what the template prints after
    /// that.</summary>
    public void Mark(AssistantTurn turn)
    {
        var first = FirstBehind(turn.Start);
        var last = first - 1;
        while (last + 1 < spans.Count && spans[last + 1].Start < turn.End)
            last++;
        if (last < first)
            return;
        var turnEnd = last;
        while (turnEnd >= first && !endOfTurn.Contains(spans[turnEnd].Id))
            turnEnd = turn.Whole ? turnEnd - 1 : -1;
        if (turnEnd >= first)
            last = turnEnd;
        else if (last + 1 < spans.Count && endOfTurn.Contains(spans[last + 1].Id))
            last++;
        Array.Fill(trained, true, first, last - first + 1);
    }

    /// <summary>The first token that ends behind a place of the text. The spans are in order and a chat may have many
    /// turns, so it is looked for by halves.</summary>
    private int FirstBehind(int start)
    {
        var (first, behind) = (0, spans.Count);
        while (first < behind)
        {
            var middle = (first + behind) / 2;
            if (spans[middle].End <= start)
                first = middle + 1;
            else
                behind = middle;
        }
        return first;
    }
}
