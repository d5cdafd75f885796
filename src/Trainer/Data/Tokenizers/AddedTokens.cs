using System.Text.Json;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>A token that was added to the vocabulary and is found in the text as a whole.</summary>
internal sealed record AddedToken(int Id, string Content, bool Special, bool SingleWord, bool LeftStrip, bool RightStrip, bool Normalized)
{
    public static AddedToken Read(JsonElement json)
    {
        var special = json.Flag("special", false);
        return new(json.GetProperty("id").GetInt32(), json.GetProperty("content").GetString()!, special,
            json.Flag("single_word", false), json.Flag("lstrip", false), json.Flag("rstrip", false), json.Flag("normalized", !special));
    }
}

/// <summary>Finds added tokens in a text: the leftmost first, of several the longest.</summary>
internal sealed class AddedTokens
{
    private readonly Dictionary<char, List<(string Pattern, AddedToken Token)>> byFirst = [];

    public AddedTokens(IEnumerable<(string Pattern, AddedToken Token)> tokens)
    {
        foreach (var entry in tokens.Where(entry => entry.Pattern.Length > 0).OrderByDescending(entry => entry.Pattern.Length))
        {
            if (!byFirst.TryGetValue(entry.Pattern[0], out var list)) byFirst[entry.Pattern[0]] = list = [];
            list.Add(entry);
        }
    }

    /// <summary>The text in order: added tokens with their id, and the stretches between them with none.</summary>
    public IEnumerable<(int? Id, Aligned Text)> Split(Aligned text)
    {
        var done = 0;
        foreach (var (start, end, token) in Find(text.Text))
        {
            if (token.SingleWord && (EndsWithWord(text.Text, start) || StartsWithWord(text.Text, end))) continue;
            var (from, to) = (start, end);
            while (token.LeftStrip && from > done && char.IsWhiteSpace(text.Text[from - 1])) from--;
            while (token.RightStrip && to < text.Length && char.IsWhiteSpace(text.Text[to])) to++;
            from = Math.Max(from, done);
            if (to <= from) continue;
            if (from > done) yield return (null, text.Slice(done, from - done));
            yield return (token.Id, text.Slice(from, to - from));
            done = to;
        }
        if (done < text.Length) yield return (null, text.Slice(done, text.Length - done));
    }

    private IEnumerable<(int Start, int End, AddedToken Token)> Find(string text)
    {
        for (var i = 0; i < text.Length && byFirst.Count > 0;)
        {
            var (pattern, token) = byFirst.TryGetValue(text[i], out var candidates)
                ? candidates.FirstOrDefault(entry => string.CompareOrdinal(text, i, entry.Pattern, 0, entry.Pattern.Length) == 0)
                : default;
            if (token is not null) yield return (i, i + pattern.Length, token);
            i += token is null ? 1 : pattern.Length;
        }
    }

    private static bool EndsWithWord(string text, int end) =>
        end > 0 && Aligned.IsWordRune(System.Text.Rune.GetRuneAt(text, end - (end > 1 && char.IsLowSurrogate(text[end - 1]) ? 2 : 1)));

    private static bool StartsWithWord(string text, int start) => start < text.Length && Aligned.IsWordRune(System.Text.Rune.GetRuneAt(text, start));
}
