using System.Text;
using System.Text.Json;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>The first stage: text to the text that the vocabulary was made from.</summary>
internal static class Normalizer
{
    public static Func<Aligned, Aligned> Read(JsonElement? part)
    {
        if (part is not { } json) return text => text;
        switch (json.Type())
        {
            case "NFC": return text => UnicodeForms.Normalize(text, compatible: false, compose: true);
            case "NFD": return text => UnicodeForms.Normalize(text, compatible: false, compose: false);
            case "NFKC": return text => UnicodeForms.Normalize(text, compatible: true, compose: true);
            case "NFKD": return text => UnicodeForms.Normalize(text, compatible: true, compose: false);
            case "Lowercase": return Lowercase;
            case "Strip":
                var (left, right) = (json.Flag("strip_left", true), json.Flag("strip_right", true));
                return text => Strip(text, left, right);
            case "Prepend":
                var prefix = json.Text("prepend") ?? "";
                return text => Prepend(text, prefix);
            case "Replace":
                var (matches, content) = (Component.Pattern(json), json.Text("content") ?? "");
                return text => Replace(text, matches(text.Text), content);
            case "Sequence":
                var steps = json.GetProperty("normalizers").EnumerateArray().Select(step => Read(step)).ToList();
                return text => steps.Aggregate(text, (current, step) => step(current));
            default: throw Component.Unsupported($"the normalizer \"{json.Type()}\"", json.ToString());
        }
    }

    private static Aligned Lowercase(Aligned text)
    {
        var output = new AlignedBuilder();
        for (var i = 0; i < text.Length;)
        {
            var rune = text.RuneAt(i);
            var (from, to) = (text.From(i), text.To(i + rune.Utf16SequenceLength - 1));
            // The one letter whose lower case is two characters.
            output.Append(rune.Value == 0x130 ? "i\u0307" : Rune.ToLowerInvariant(rune).ToString(), from, to);
            i += rune.Utf16SequenceLength;
        }
        return output.Build();
    }

    private static Aligned Strip(Aligned text, bool left, bool right)
    {
        var (start, end) = (0, text.Length);
        while (left && start < end && char.IsWhiteSpace(text.Text[start])) start++;
        while (right && end > start && char.IsWhiteSpace(text.Text[end - 1])) end--;
        return text.Slice(start, end - start);
    }

    internal static Aligned Prepend(Aligned text, string prefix)
    {
        if (text.Length == 0) return text;
        var output = new AlignedBuilder();
        output.Append(prefix, text.From(0), text.From(0));
        output.Append(text, 0, text.Length);
        return output.Build();
    }

    private static Aligned Replace(Aligned text, IEnumerable<(int Start, int End)> matches, string content)
    {
        var output = new AlignedBuilder();
        var done = 0;
        foreach (var (start, end) in matches)
        {
            output.Append(text, done, start - done);
            output.Append(content, text.From(start), text.To(end - 1));
            done = end;
        }
        if (done == 0) return text;
        output.Append(text, done, text.Length - done);
        return output.Build();
    }
}
