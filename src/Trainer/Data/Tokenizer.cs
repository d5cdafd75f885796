using System.Text.Json;
using Memopt.Trainer.Data.Tokenizers;

namespace Memopt.Trainer.Data;

/// <summary>A token of a text and the characters (UTF-16 units, end excluded) that it stands for.</summary>
public readonly record struct TokenSpan(int Id, int Start, int End);

/// <summary>A model's own byte-level BPE tokenizer, as its <c>tokenizer.json</c> describes it.</summary>
public sealed class Tokenizer
{
    private readonly Func<Aligned, Aligned> normalize;
    private readonly Func<Aligned, IEnumerable<Aligned>> split;
    private readonly BytePairs model;
    private readonly AddedTokens raw, normalized;
    private readonly Dictionary<string, int> ids;
    private readonly Dictionary<int, string> tokens = [];
    private readonly HashSet<int> special = [];
    private readonly List<int> before = [], after = [];
    private readonly bool byteDecoder;

    private Tokenizer(JsonElement json, string? endToken)
    {
        var added = (json.Part("added_tokens")?.EnumerateArray().Select(AddedToken.Read) ?? []).ToList();
        normalize = Normalizer.Read(json.Part("normalizer"));
        split = PreTokenizer.Read(json.Part("pre_tokenizer"));
        model = new BytePairs(json.GetProperty("model"));
        ids = new(model.Ids);
        foreach (var (token, id) in ids) tokens[id] = token;
        foreach (var token in added)
        {
            ids[token.Content] = token.Id;
            tokens[token.Id] = token.Content;
            if (token.Special) special.Add(token.Id);
        }
        raw = new(added.Where(token => !token.Normalized).Select(token => (token.Content, token)));
        normalized = new(added.Where(token => token.Normalized).Select(token => (normalize(Aligned.Of(token.Content)).Text, token)));
        ReadPostProcessor(json.Part("post_processor"));
        byteDecoder = json.Part("decoder") switch
        {
            null => false,
            { } decoder when decoder.Type() == "ByteLevel" => true,
            { } decoder => throw Component.Unsupported($"the decoder \"{decoder.Type()}\"", decoder.ToString()),
        };
        EndOfText = endToken is not null && ids.TryGetValue(endToken, out var end) ? end : null;
    }

    /// <summary>Reads <c>tokenizer.json</c> and, when there is one, <c>tokenizer_config.json</c>.</summary>
    public static Tokenizer Load(string modelFolder)
    {
        var file = Path.Combine(modelFolder, "tokenizer.json");
        if (!File.Exists(file)) throw new UserFault($"No tokenizer.json in {modelFolder}.", next: "name a folder of a model with its tokenizer, or train on rows of input_ids");
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(file));
            return new Tokenizer(json.RootElement, TokenizerConfig.Read(modelFolder).EndToken);
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException or FormatException or IndexOutOfRangeException)
        {
            throw new UserFault($"{file} is not a tokenizer that can be read.", error.Message, inner: error);
        }
    }

    /// <summary>How many tokens there are, added ones included.</summary>
    public int VocabSize => tokens.Count;

    /// <summary>The model's end-of-sequence token, if its configuration names one.</summary>
    public int? EndOfText { get; }

    public int? Id(string token) => ids.TryGetValue(token, out var id) ? id : null;

    public string? Token(int id) => tokens.GetValueOrDefault(id);

    /// <summary>The tokens of a text; <paramref name="addSpecial"/> puts those around it that the model's post-processor names.</summary>
    public int[] Encode(string text, bool addSpecial = false)
    {
        var found = Spans(text).Select(token => token.Id);
        return addSpecial ? [.. before, .. found, .. after] : [.. found];
    }

    /// <summary>The tokens that the post-processor puts before a text (a beginning-of-sequence token, say).</summary>
    public IReadOnlyList<int> Prefix => before;

    /// <summary>The tokens of a text with the characters each stands for.</summary>
    public IReadOnlyList<TokenSpan> Spans(string text)
    {
        var found = new List<TokenSpan>();
        foreach (var (rawId, part) in raw.Split(Aligned.Of(Aligned.WellFormed(text))))
        {
            if (rawId is { } whole)
            {
                found.Add(new(whole, part.From(0), part.To(part.Length - 1)));
                continue;
            }
            foreach (var (id, stretch) in normalized.Split(normalize(part)))
            {
                if (id is { } token) found.Add(new(token, stretch.From(0), stretch.To(stretch.Length - 1)));
                else Encode(stretch, found);
            }
        }
        return found;
    }

    /// <summary>The text of tokens; bytes that are no UTF-8 become U+FFFD.</summary>
    public string Decode(IReadOnlyList<int> ids, bool skipSpecial = true)
    {
        var kept = ids.Where(id => !(skipSpecial && special.Contains(id)) && tokens.ContainsKey(id)).Select(id => tokens[id]);
        return byteDecoder ? ByteAlphabet.Decode(kept) : string.Join(' ', kept);
    }

    private void Encode(Aligned stretch, List<TokenSpan> found)
    {
        foreach (var piece in split(stretch))
        {
            if (piece.Length == 0) continue;
            var at = 0;
            foreach (var (id, length) in model.Encode(piece.Text))
            {
                var (first, last) = (Math.Min(at, piece.Length - 1), Math.Max(0, at + length - 1));
                found.Add(new(id, piece.From(length == 0 ? Math.Max(0, at - 1) : first), piece.To(last)));
                at += length;
            }
        }
    }

    private void ReadPostProcessor(JsonElement? part)
    {
        if (part is not { } json) return;
        switch (json.Type())
        {
            case "ByteLevel":
                break;
            case "Sequence":
                foreach (var step in json.GetProperty("processors").EnumerateArray()) ReadPostProcessor(step);
                break;
            case "TemplateProcessing":
                var side = before;
                foreach (var entry in json.GetProperty("single").EnumerateArray())
                {
                    if (entry.Part("Sequence") is not null) side = after;
                    else side.AddRange(json.GetProperty("special_tokens").GetProperty(entry.GetProperty("SpecialToken").GetProperty("id").GetString()!)
                        .GetProperty("ids").EnumerateArray().Select(id => id.GetInt32()));
                }
                break;
            default: throw Component.Unsupported($"the post-processor \"{json.Type()}\"", json.ToString());
        }
    }
}
