using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>The second stage: text to the pieces that tokens never cross.</summary>
internal static class PreTokenizer
{
    private const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    public static Func<Aligned, IEnumerable<Aligned>> Read(JsonElement? part)
    {
        if (part is not { } json) return text => [text];
        switch (json.Type())
        {
            case "Sequence":
                var steps = json.GetProperty("pretokenizers").EnumerateArray().Select(step => Read(step)).ToList();
                return text => steps.Aggregate((IEnumerable<Aligned>)[text], (pieces, step) => pieces.SelectMany(step));
            case "Split":
                var (pattern, invert, behavior) = (Component.Pattern(json), json.Flag("invert", false), json.Text("behavior") ?? "");
                Check(behavior);
                return text => Split(text, pattern(text.Text), behavior, invert);
            case "Digits":
                var digits = json.Flag("individual_digits", false) ? "Isolated" : "Contiguous";
                return text => Split(text, Numerals(text.Text), digits, invert: false);
            case "ByteLevel":
                var words = json.Flag("use_regex", true) ? new CodePointRegex(Gpt2) : null;
                var prefix = json.Flag("add_prefix_space", true);
                return text => Bytes(text, prefix, words);
            default: throw Component.Unsupported($"the pre-tokenizer \"{json.Type()}\"", json.ToString());
        }
    }

    private static void Check(string behavior)
    {
        if (behavior is not ("Isolated" or "Removed" or "Contiguous" or "MergedWithPrevious" or "MergedWithNext"))
            throw Component.Unsupported("a Split behavior of this name", behavior);
    }

    private static IEnumerable<Aligned> Bytes(Aligned text, bool prefix, CodePointRegex? words)
    {
        if (prefix && !text.Text.StartsWith(' ')) text = Normalizer.Prepend(text, " ");
        var pieces = words is null ? [text] : Split(text, words.Matches(text.Text), "Isolated", invert: false);
        return pieces.Select(ByteAlphabet.Encode);
    }

    private static IEnumerable<(int Start, int End)> Numerals(string text)
    {
        for (var i = 0; i < text.Length;)
        {
            var rune = Rune.GetRuneAt(text, i);
            var end = i + rune.Utf16SequenceLength;
            if (Rune.GetUnicodeCategory(rune) is UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber)
                yield return (i, end);
            i = end;
        }
    }

    private static IEnumerable<Aligned> Split(Aligned text, IEnumerable<(int Start, int End)> matches, string behavior, bool invert)
    {
        var parts = new List<(int Start, int End, bool Match)>();
        var done = 0;
        foreach (var (start, end) in matches)
        {
            if (start > done) parts.Add((done, start, invert));
            parts.Add((start, end, !invert));
            done = end;
        }
        if (done < text.Length) parts.Add((done, text.Length, invert));

        var pieces = new List<(int Start, int End)>();
        for (var i = 0; i < parts.Count; i++)
        {
            var (start, end, match) = parts[i];
            var previous = i > 0 && parts[i - 1].Match;
            var joins = i > 0 && behavior switch
            {
                "Contiguous" => match == previous,
                "MergedWithPrevious" => match && !previous,
                // Of a run of matches only the last goes with what follows it.
                "MergedWithNext" => previous && !match,
                _ => false,
            };
            if (joins) pieces[^1] = (pieces[^1].Start, end);
            else if (!(match && behavior == "Removed")) pieces.Add((start, end));
        }
        return pieces.Select(piece => text.Slice(piece.Start, piece.End - piece.Start));
    }
}
