using System.Globalization;
using System.Text;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>From the spellings of tokens to text. Every step turns a list of texts into another; the last is
/// joined.</summary>
internal static class TokenDecoder
{
    /// <summary>One step, or several; what it makes of the tokens is taken from the budget where it can be longer than
    /// they are.</summary>
    public delegate List<string> DecodeStep(List<string> tokens, Budget budget);

    public static DecodeStep Read(JsonElement? part)
    {
        // Without a decoder the reference puts spaces between tokens.
        if (part is not { } json)
            return (tokens, _) => [string.Join(' ', tokens)];
        switch (json.Type())
        {
            case "ByteLevel":
                return (tokens, _) => [ByteAlphabet.Decode(tokens)];
            case "ByteFallback":
                return (tokens, _) => Bytes(tokens);
            case "Fuse":
                return (tokens, _) => [string.Concat(tokens)];
            case "Strip":
                var (edge, start, stop) = (json.Text("content") ?? " ", Count(json, "start"), Count(json, "stop"));
                return (tokens, _) => tokens.ConvertAll(token => Strip(token, edge[0], start, stop));
            case "Replace":
                var (matches, content) = (Component.Pattern(json), json.Text("content") ?? "");
                return (tokens, budget) =>
                    tokens.ConvertAll(token => Replace(token, matches(token, budget), content, budget));
            case "Metaspace":
                var (mark, first) = (
                    (json.Text("replacement") ?? "▁")[0],
                    PreTokenizer.MetaspaceScheme(json) == "never" ? " " : ""
                );
                return (tokens, _) =>
                    [.. tokens.Select((token, index) => token.Replace($"{mark}", index == 0 ? first : " "))];
            case "WordPiece":
                var (prefix, cleanup) = (json.Text("prefix") ?? "##", json.Flag("cleanup", true));
                return (tokens, _) => [.. tokens.Select((token, index) => Word(token, index == 0, prefix, cleanup))];
            case "BPEDecoder":
                var suffix = json.Text("suffix") ?? "</w>";
                return (tokens, _) =>
                    [
                        .. tokens.Select(
                            (token, index) =>
                                suffix.Length == 0 ? token : token.Replace(suffix, index == tokens.Count - 1 ? "" : " ")
                        ),
                    ];
            case "CTC":
                var (pad, delimiter, tidy) = (
                    json.Text("pad_token") ?? "<pad>",
                    json.Text("word_delimiter_token") ?? "|",
                    json.Flag("cleanup", true)
                );
                return (tokens, _) =>
                    [
                        .. tokens
                            .Where((token, index) => index == 0 || token != tokens[index - 1])
                            .Select(token => Spoken(token, pad, delimiter, tidy))
                            .Where(text => text.Length > 0),
                    ];
            case "Sequence":
                var steps = json.GetProperty("decoders").EnumerateArray().Select(step => Read(step)).ToList();
                return (tokens, budget) => steps.Aggregate(tokens, (current, step) => step(current, budget));
            default:
                throw Component.Unsupported($"the decoder \"{json.Type()}\"", json.ToString());
        }
    }

    private static int Count(JsonElement json, string key) => json.Part(key)?.GetInt32() ?? 0;

    /// <summary>Runs of tokens like &lt;0xE2&gt; as the text that their bytes are; of a run that is no UTF-8, every
    /// byte is U+FFFD.</summary>
    private static List<string> Bytes(List<string> tokens)
    {
        var (texts, run) = (new List<string>(), new List<byte>());
        foreach (var token in tokens)
        {
            if (
                token.Length == 6
                && token.StartsWith("<0x", StringComparison.Ordinal)
                && token[5] == '>'
                && byte.TryParse(
                    token.AsSpan(3, 2),
                    NumberStyles.HexNumber,
                    CultureInfo.InvariantCulture,
                    out var value
                )
            )
            {
                run.Add(value);
                continue;
            }
            End();
            texts.Add(token);
        }
        End();
        return texts;

        void End()
        {
            byte[] bytes = [.. run];
            run.Clear();
            if (bytes.Length == 0)
                return;
            if (System.Text.Unicode.Utf8.IsValid(bytes))
                texts.Add(Encoding.UTF8.GetString(bytes));
            else
                texts.AddRange(bytes.Select(_ => "\uFFFD"));
        }
    }

    private static string Strip(string token, char edge, int start, int stop)
    {
        var (from, to) = (0, token.Length);
        while (from < to && from < start && token[from] == edge)
            from++;
        while (to > from && token.Length - to < stop && token[to - 1] == edge)
            to--;
        return token[from..to];
    }

    private static string Replace(string token, List<(int Start, int End)> matches, string content, Budget budget)
    {
        budget.Spend(2L * (token.Length + (long)matches.Count * content.Length));
        if (matches.Count == 0)
            return token;
        var (output, done) = (new StringBuilder(), 0);
        foreach (var (start, end) in matches)
        {
            output.Append(token, done, start - done).Append(content);
            done = end;
        }
        return output.Append(token, done, token.Length - done).ToString();
    }

    private static string Spoken(string token, string pad, string delimiter, bool cleanup)
    {
        if (pad.Length > 0)
            token = token.Replace(pad, "", StringComparison.Ordinal);
        if (!cleanup)
            return token;
        return delimiter.Length > 0 ? Clean(token).Replace(delimiter, " ", StringComparison.Ordinal) : Clean(token);
    }

    private static string Word(string token, bool first, string prefix, bool cleanup)
    {
        if (!first)
            token = token.StartsWith(prefix, StringComparison.Ordinal) ? token[prefix.Length..] : " " + token;
        return cleanup ? Clean(token) : token;
    }

    /// <summary>Without the spaces that English does not have.</summary>
    private static string Clean(string token)
    {
        foreach (
            var (spaced, tight) in ((string, string)[])
                [
                    (" .", "."),
                    (" ?", "?"),
                    (" !", "!"),
                    (" ,", ","),
                    (" ' ", "'"),
                    (" n't", "n't"),
                    (" 'm", "'m"),
                    (" do not", " don't"),
                    (" 's", "'s"),
                    (" 've", "'ve"),
                    (" 're", "'re"),
                ]
        )
            token = token.Replace(spaced, tight, StringComparison.Ordinal);
        return token;
    }
}
