using System.Text;
using System.Text.Json;

namespace Memopt.Text.Tokenizers;

/// <summary>The second stage: text to the pieces that tokens never cross.</summary>
/// <param name="Split">The pieces of a text, in its own spelling.</param>
/// <param name="Bytes">Whether the pieces then are to be spelled in the byte alphabet.</param>
internal sealed record PreTokenizer(Func<NormalizedString, IEnumerable<NormalizedString>> Split, bool Bytes = false)
{
    private const long BytesPerPiece = 80;

    private const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    public static PreTokenizer Read(JsonElement? part)
    {
        if (part is not { } json)
            return new(Whole);
        switch (json.Type())
        {
            case "Sequence":
                var steps = json.GetProperty("pretokenizers").EnumerateArray().Select(step => Read(step)).ToList();
                return steps.Count == 0 ? Read(null) : steps.Aggregate((first, second) => first.Then(second));
            case "Split":
                var (pattern, invert, behavior) = (
                    Component.Pattern(json),
                    json.Flag("invert", false),
                    Behavior(json, "")
                );
                return new(text => Cut(text, pattern(text.Text, text.Budget), behavior, invert));
            case "Digits":
                return Classes(Characters.IsNumeral, json.Flag("individual_digits", false) ? "Isolated" : "Contiguous");
            case "Punctuation":
                return Classes(Characters.IsPunctuation, Behavior(json, "Isolated"));
            case "WhitespaceSplit":
                return Classes(Rune.IsWhiteSpace, "Removed");
            case "BertPreTokenizer":
                return Classes(Rune.IsWhiteSpace, "Removed").Then(Classes(Characters.IsPunctuation, "Isolated"));
            // Runs of word characters and runs of what is neither word nor space.
            case "Whitespace":
                return Classes(Rune.IsWhiteSpace, "Removed").Then(Classes(Characters.IsWord, "Contiguous"));
            case "CharDelimiterSplit":
                var delimiter = json.Text("delimiter")?.EnumerateRunes().FirstOrDefault();
                return Classes(rune => rune == delimiter, "Removed");
            case "FixedLength":
                var length = json.Part("length")?.GetInt32() ?? 5;
                return length > 0
                    ? new(text => Chunks(text, length))
                    : throw Component.Unsupported("a FixedLength of this length", $"{length}");
            case "Metaspace":
                return Metaspace(json);
            case "ByteLevel":
                var words = json.Flag("use_regex", true) ? new CodePointRegex(Gpt2) : null;
                var prefix = json.Flag("add_prefix_space", true);
                if (words is null && !prefix)
                    return new(Whole, Bytes: true);
                return new(
                    text =>
                    {
                        if (prefix && !text.Text.StartsWith(' '))
                            text = Normalizer.Prepend(text, " ");
                        return words is null
                            ? [text]
                            : Cut(text, words.Matches(text.Text, text.Budget), "Isolated", invert: false);
                    },
                    Bytes: true
                );
            default:
                throw Component.Unsupported($"the pre-tokenizer \"{json.Type()}\"", json.ToString());
        }
    }

    private static IEnumerable<NormalizedString> Whole(NormalizedString text) => [text];

    private PreTokenizer Then(PreTokenizer next)
    {
        var pieces = Bytes ? text => Split(text).Select(ByteAlphabet.Encode) : Split;
        return new(next.Split == Whole ? pieces : text => pieces(text).SelectMany(next.Split), next.Bytes);
    }

    private static PreTokenizer Metaspace(JsonElement json)
    {
        var mark = json.Text("replacement") ?? "▁";
        if (mark.Length != 1)
            throw Component.Unsupported("a Metaspace replacement of this length", mark);
        var (scheme, split) = (MetaspaceScheme(json), json.Flag("split", true));
        return new(text =>
        {
            text = text.Respelled(text.Text.ToString().Replace(" ", mark));
            var prepends = scheme == "always" || scheme == "first" && text.IsFirst;
            if (prepends && text.Text[0] != mark[0])
                text = Normalizer.Prepend(text, mark);
            return split
                ? Cut(text, Component.Occurrences(text.Text, mark, text.Budget), "MergedWithNext", invert: false)
                : [text];
        });
    }

    /// <summary>Where the mark is put before a text: always, first or never; older files say
    /// add_prefix_space.</summary>
    public static string MetaspaceScheme(JsonElement json)
    {
        var scheme = json.Text("prepend_scheme") ?? (json.Flag("add_prefix_space", true) ? "always" : "never");
        return scheme is "always" or "first" or "never"
            ? scheme
            : throw Component.Unsupported("a Metaspace prepend_scheme of this name", scheme);
    }

    private static IEnumerable<NormalizedString> Chunks(NormalizedString text, int length)
    {
        var (pieces, start, count, at) = (new List<NormalizedString>(), 0, 0, 0);
        foreach (var rune in text.Text.EnumerateRunes())
        {
            at += rune.Utf16SequenceLength;
            if (++count % length != 0 && at < text.Length)
                continue;
            pieces.Add(text.Slice(start, at - start));
            start = at;
        }
        return pieces;
    }

    private static string Behavior(JsonElement json, string otherwise)
    {
        var behavior = json.Text("behavior") ?? otherwise;
        return behavior is "Isolated" or "Removed" or "Contiguous" or "MergedWithPrevious" or "MergedWithNext"
            ? behavior
            : throw Component.Unsupported("a Split behavior of this name", behavior);
    }

    /// <summary>Every character of a class is a match of its own.</summary>
    private static PreTokenizer Classes(Func<Rune, bool> belongs, string behavior) =>
        new(text =>
        {
            var matches = new List<(int, int)>();
            var at = 0;
            foreach (var rune in text.Text.EnumerateRunes())
            {
                if (belongs(rune))
                    matches.Add((at, at + rune.Utf16SequenceLength));
                at += rune.Utf16SequenceLength;
            }
            return Cut(text, matches, behavior, invert: false);
        });

    private static List<NormalizedString> Cut(
        NormalizedString text,
        List<(int Start, int End)> matches,
        string behavior,
        bool invert
    )
    {
        text.Budget?.Spend(BytesPerPiece * matches.Count);
        var pieces = new List<NormalizedString>(matches.Count);
        if (behavior == "Isolated" && matches.Count == 0)
            return [text];
        var (done, start, end, wasMatch) = (0, 0, 0, false);
        foreach (var (from, to) in matches)
        {
            if (from > done)
                Add(done, from, invert);
            Add(from, to, !invert);
            done = to;
        }
        if (done < text.Length)
            Add(done, text.Length, invert);
        if (end > start)
            pieces.Add(text.Slice(start, end - start));
        return pieces;

        void Add(int from, int to, bool match)
        {
            var joins = behavior switch
            {
                "Contiguous" => match == wasMatch,
                "MergedWithPrevious" => match && !wasMatch,
                // Of a run of matches only the last goes with what follows it.
                "MergedWithNext" => wasMatch && !match,
                _ => false,
            };
            if (!joins || end == start)
            {
                if (end > start)
                    pieces.Add(text.Slice(start, end - start));
                start = from;
            }
            end = match && behavior == "Removed" ? start : to;
            wasMatch = match;
        }
    }
}
