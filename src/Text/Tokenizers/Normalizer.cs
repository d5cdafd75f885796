using System.Text;
using System.Text.Json;

namespace Memopt.Text.Tokenizers;

/// <summary>The first stage: text to the text that the vocabulary was made from.</summary>
internal static class Normalizer
{
    public static Func<NormalizedString, NormalizedString> Read(JsonElement? part)
    {
        if (part is not { } json)
            return text => text;
        switch (json.Type())
        {
            case "NFC":
                return text => UnicodeForms.Normalize(text, compatible: false, compose: true);
            case "NFD":
                return text => UnicodeForms.Normalize(text, compatible: false, compose: false);
            case "NFKC":
                return text => UnicodeForms.Normalize(text, compatible: true, compose: true);
            case "NFKD":
                return text => UnicodeForms.Normalize(text, compatible: true, compose: false);
            case "Lowercase":
                return Lowercase;
            case "StripAccents":
                return text => Keep(text, rune => !Characters.IsMark(rune));
            case "BertNormalizer":
                return Bert(json);
            case "Nmt":
                return text =>
                    Change(Keep(text, rune => !IsControl(rune)), rune => IsSpacing(rune) ? new Rune(' ') : rune);
            case "Precompiled":
                var map = CharactersMap.Read(json.GetProperty("precompiled_charsmap").GetBytesFromBase64());
                return map is null ? text => text : map.Normalize;
            case "Strip":
                var (left, right) = (json.Flag("strip_left", true), json.Flag("strip_right", true));
                return text => Strip(text, left, right);
            case "Prepend":
                var prefix = json.Text("prepend") ?? "";
                return text => Prepend(text, prefix);
            case "Replace":
                return Replace(json);
            // The oldest files have the byte alphabet here instead of in the pre-tokenizer.
            case "ByteLevel":
                return ByteAlphabet.Encode;
            case "Sequence":
                var steps = json.GetProperty("normalizers").EnumerateArray().Select(step => Read(step)).ToList();
                return text => steps.Aggregate(text, (current, step) => step(current));
            default:
                throw Component.Unsupported($"the normalizer \"{json.Type()}\"", json.ToString());
        }
    }

    private static Func<NormalizedString, NormalizedString> Bert(JsonElement json)
    {
        var lower = json.Flag("lowercase", true);
        var (clean, chinese, accents) = (
            json.Flag("clean_text", true),
            json.Flag("handle_chinese_chars", true),
            json.Flag("strip_accents", lower)
        );
        return text =>
        {
            if (clean)
                text = Change(
                    Keep(text, rune => !Characters.IsUnclean(rune)),
                    rune => Rune.IsWhiteSpace(rune) ? new Rune(' ') : rune
                );
            if (chinese)
                text = Spaced(text);
            if (accents)
                text = Keep(
                    UnicodeForms.Normalize(text, compatible: false, compose: false),
                    rune => !Characters.IsAccent(rune)
                );
            return lower ? Lowercase(text) : text;
        };
    }

    // SentencePiece's rules for machine translation.
    private static bool IsControl(Rune rune) =>
        rune.Value is (>= 0x01 and <= 0x08) or 0x0B or (>= 0x0E and <= 0x1F) or 0x7F or 0x8F or 0x9F;

    private static bool IsSpacing(Rune rune) =>
        rune.Value
            is '\t'
                or '\n'
                or '\f'
                or '\r'
                or 0x1680
                or (>= 0x200B and <= 0x200F)
                or 0x2028
                or 0x2029
                or 0x2581
                or 0xFEFF
                or 0xFFFD;

    private static bool IsChinese(Rune rune) =>
        rune.Value
            is (>= 0x4E00 and <= 0x9FFF)
                or (>= 0x3400 and <= 0x4DBF)
                or (>= 0x20000 and <= 0x2A6DF)
                or (>= 0x2A700 and <= 0x2B73F)
                or (>= 0x2B740 and <= 0x2B81F)
                or (>= 0x2B920 and <= 0x2CEAF)
                or (>= 0xF900 and <= 0xFAFF)
                or (>= 0x2F800 and <= 0x2FA1F);

    private static NormalizedString Spaced(NormalizedString text) =>
        Write(
            text,
            IsChinese,
            (rune, from, to, output) =>
            {
                output.Append(' ', from, to);
                output.Append(rune, from, to);
                output.Append(' ', from, to);
            }
        );

    private static NormalizedString Keep(NormalizedString text, Func<Rune, bool> keep) =>
        Write(text, rune => !keep(rune), (_, _, _, _) => { });

    private static NormalizedString Change(NormalizedString text, Func<Rune, Rune> change) =>
        Write(text, rune => change(rune) != rune, (rune, from, to, output) => output.Append(change(rune), from, to));

    private static NormalizedString Lowercase(NormalizedString text) =>
        Write(
            text,
            rune => rune.Value == 0x130 || Rune.ToLowerInvariant(rune) != rune,
            (rune, from, to, output) =>
            {
                // The one letter whose lower case is two characters.
                if (rune.Value == 0x130)
                    output.Append("i\u0307", from, to);
                else
                    output.Append(Rune.ToLowerInvariant(rune), from, to);
            }
        );

    /// <summary>The text with some of its characters written otherwise.</summary>
    private static NormalizedString Write(
        NormalizedString text,
        Func<Rune, bool> changes,
        Action<Rune, int, int, NormalizedStringBuilder> write
    )
    {
        NormalizedStringBuilder? output = null;
        var (at, done) = (0, 0);
        foreach (var rune in text.Text.EnumerateRunes())
        {
            var end = at + rune.Utf16SequenceLength;
            if (changes(rune))
            {
                output ??= new(text.Budget);
                output.Append(text, done, at - done);
                write(rune, text.From(at), text.To(end - 1), output);
                done = end;
            }
            at = end;
        }
        if (output is null)
            return text;
        output.Append(text, done, text.Length - done);
        return output.Build();
    }

    private static NormalizedString Strip(NormalizedString text, bool left, bool right)
    {
        var (start, end) = (0, text.Length);
        while (left && start < end && char.IsWhiteSpace(text.Text[start]))
            start++;
        while (right && end > start && char.IsWhiteSpace(text.Text[end - 1]))
            end--;
        return text.Slice(start, end - start);
    }

    internal static NormalizedString Prepend(NormalizedString text, string prefix)
    {
        if (text.Length == 0)
            return text;
        var output = new NormalizedStringBuilder(text.Budget);
        output.Append(prefix, text.From(0), text.From(0));
        output.Append(text, 0, text.Length);
        return output.Build();
    }

    private static Func<NormalizedString, NormalizedString> Replace(JsonElement json)
    {
        var content = json.Text("content") ?? "";
        // One character for another: nothing moves.
        if (Component.Literal(json) is { Length: 1 } literal && content.Length == 1)
            return text =>
                text.Text.Contains(literal[0])
                    ? text.Respelled(text.Text.ToString().Replace(literal[0], content[0]))
                    : text;
        var matches = Component.Pattern(json);
        return text =>
        {
            var found = matches(text.Text, text.Budget);
            if (found.Count == 0)
                return text;
            var (output, done) = (new NormalizedStringBuilder(text.Budget), 0);
            foreach (var (start, end) in found)
            {
                output.Append(text, done, start - done);
                // An empty match puts the content between two characters.
                var from = start < text.Length ? text.From(start) : text.To(start - 1);
                output.Append(content, from, end > start ? text.To(end - 1) : from);
                done = end;
            }
            output.Append(text, done, text.Length - done);
            return output.Build();
        };
    }
}
