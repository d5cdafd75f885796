using System.Buffers;
using System.Text;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>A token that was added to the vocabulary and is found in the text as a whole.</summary>
internal sealed record AddedToken(
    int Id,
    string Content,
    bool Special,
    bool SingleWord,
    bool LeftStrip,
    bool RightStrip,
    bool Normalized
)
{
    public static AddedToken Read(JsonElement json)
    {
        var special = json.Flag("special", false);
        return new(
            json.GetProperty("id").GetInt32(),
            json.GetProperty("content").GetString() ?? throw new FormatException("an added token without content"),
            special,
            json.Flag("single_word", false),
            json.Flag("lstrip", false),
            json.Flag("rstrip", false),
            json.Flag("normalized", !special)
        );
    }
}

/// <summary>Finds added tokens in a text: the leftmost first, of several the longest.</summary>
internal sealed class AddedTokens
{
    private readonly Trie patterns = new();
    private readonly List<AddedToken> tokens = [];
    private readonly SearchValues<char> beginnings;

    public AddedTokens(IEnumerable<(string Pattern, AddedToken Token)> tokens, Budget budget)
    {
        var first = new HashSet<char>();
        // Of two that are written alike, once normalized, the special one is found, else the first.
        foreach (
            var (pattern, token) in tokens
                .Where(entry => entry.Pattern.Length > 0)
                .OrderBy(entry => !entry.Token.Special)
                .DistinctBy(entry => entry.Pattern)
        )
        {
            patterns.Add(pattern, this.tokens.Count, budget);
            this.tokens.Add(token);
            first.Add(pattern[0]);
        }
        beginnings = SearchValues.Create([.. first]);
    }

    /// <summary>The text in order: added tokens with their id, and the stretches between them with none.</summary>
    public List<(int? Id, NormalizedString Text)> Split(NormalizedString text)
    {
        var parts = new List<(int? Id, NormalizedString Text)>();
        var units = text.Text;
        var done = 0;
        for (var at = 0; Find(units, at, text.Budget) is { Token: { } token } found; at = found.End)
        {
            if (found.End <= done)
                continue; // in the space that the one before took: not looked through again
            if (token.SingleWord && (EndsWithWord(units[..found.Start]) || StartsWithWord(units[found.End..])))
                continue;
            var (from, to) = (found.Start, found.End);
            while (token.LeftStrip && from > done && char.IsWhiteSpace(units[from - 1]))
                from--;
            while (token.RightStrip && to < units.Length && char.IsWhiteSpace(units[to]))
                to++;
            from = Math.Max(from, done); // the token before may have taken the space
            if (to <= from)
                continue;
            if (from > done)
                parts.Add((null, text.Slice(done, from - done)));
            parts.Add((token.Id, text.Slice(from, to - from)));
            done = to;
        }
        if (done < units.Length)
            parts.Add((null, text.Slice(done, units.Length - done)));
        return parts;
    }

    private (int Start, int End, AddedToken? Token) Find(ReadOnlySpan<char> text, int from, Budget? budget)
    {
        while (from < text.Length && text[from..].IndexOfAny(beginnings) is >= 0 and var skipped)
        {
            from += skipped;
            var (longest, end) = (-1, from);
            for (int node = 0, i = from; i < text.Length && (node = patterns.Step(node, text[i])) >= 0; i++)
            {
                budget?.Spend();
                if (patterns.Value(node) >= 0)
                    (longest, end) = (patterns.Value(node), i + 1);
            }
            if (longest >= 0)
                return (from, end, tokens[longest]);
            from++;
        }
        return (from, from, null);
    }

    private static bool EndsWithWord(ReadOnlySpan<char> text) =>
        Rune.DecodeLastFromUtf16(text, out var rune, out _) == OperationStatus.Done && Characters.IsWord(rune);

    private static bool StartsWithWord(ReadOnlySpan<char> text) =>
        Rune.DecodeFromUtf16(text, out var rune, out _) == OperationStatus.Done && Characters.IsWord(rune);
}
