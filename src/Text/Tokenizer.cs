using System.Collections.Concurrent;
using System.Text.Json;
using Memopt.Core;
using Memopt.Text.Tokenizers;

namespace Memopt.Text;

/// <summary>A token of a text and the characters (UTF-16 units, end excluded) that it stands for.</summary>
public readonly record struct TokenSpan(int Id, int Start, int End);

/// <summary>A model's own tokenizer, as its <c>tokenizer.json</c> describes it. Safe for several threads.</summary>
public sealed class Tokenizer
{
    private const int LongestRemembered = 64,
        MostRemembered = 1 << 18;
    private const int SecondsToLoad = 5,
        BytesLoadedPerSecond = 1 << 20,
        BytesPerUnit = 512;
    private const long BytesToLoad = 512 << 20,
        BytesAnyText = 64 << 20;
    private static readonly TimeSpan BeyondOwnTime = TimeSpan.FromSeconds(8);

    private readonly Func<NormalizedString, NormalizedString> normalize;
    private readonly PreTokenizer pieces;
    private readonly IModel model;
    private readonly PostProcessor around;
    private readonly TokenDecoder.DecodeStep decode;
    private readonly Budget budget;
    private readonly AddedTokens raw,
        normalized;
    private readonly Dictionary<string, int> ids;
    private readonly Dictionary<int, string> tokens = [];
    private readonly HashSet<int> special = [];
    private readonly ConcurrentDictionary<string, TokenSpan[]> remembered = new();
    private readonly ConcurrentDictionary<string, TokenSpan[]>.AlternateLookup<ReadOnlySpan<char>> recall;
    private int memories;

    private Tokenizer(JsonElement json, string? endToken, Budget load, Budget budget)
    {
        this.budget = budget;
        foreach (var part in (string[])["normalizer", "pre_tokenizer", "post_processor", "decoder"])
            Component.CheckSteps(json.Part(part), part);
        var added = (json.Part("added_tokens")?.EnumerateArray().Select(AddedToken.Read) ?? []).ToList();
        normalize = Normalizer.Read(json.Part("normalizer"));
        pieces = PreTokenizer.Read(json.Part("pre_tokenizer"));
        model = IModel.Read(json.GetProperty("model"), load);
        around = PostProcessor.Read(json.Part("post_processor"));
        decode = TokenDecoder.Read(json.Part("decoder"));
        ids = new(model.Ids);
        foreach (var (token, id) in ids)
            tokens[id] = token;
        foreach (var token in added)
        {
            ids[token.Content] = token.Id;
            tokens[token.Id] = token.Content;
            if (token.Special)
                special.Add(token.Id);
        }
        raw = new(added.Where(token => !token.Normalized).Select(token => (token.Content, token)), load);
        normalized = new(
            added
                .Where(token => token.Normalized)
                .Select(token =>
                    (
                        normalize(NormalizedString.Of(NormalizedString.WellFormed(token.Content), load))
                            .Text.ToString(),
                        token
                    )
                ),
            load
        );
        recall = remembered.GetAlternateLookup<ReadOnlySpan<char>>();
        EndOfText = endToken is not null && ids.TryGetValue(endToken, out var end) ? end : null;
    }

    /// <summary>Reads <c>tokenizer.json</c> and, when there is one, <c>tokenizer_config.json</c>.</summary>
    /// <param name="modelFolder">The model's folder.</param>
    /// <param name="stop">Ends the reading, and any use of the tokenizer.</param>
    /// <exception cref="UserFault">There is none, or it cannot be read, or costs more than it may.</exception>
    public static Tokenizer Load(string modelFolder, CancellationToken stop = default)
    {
        var file = Path.Combine(modelFolder, ModelLayout.Tokenizer);
        if (!File.Exists(file))
            throw new UserFault(
                $"No tokenizer.json in {modelFolder}.",
                next: "name a folder of a model with its tokenizer, or train on rows of input_ids"
            );
        try
        {
            var text = UntrustedFile.ReadAllBytes(file, UntrustedFile.Tokenizer);
            var (what, seconds) = ($"The tokenizer {file}", SecondsToLoad + text.Length / BytesLoadedPerSecond);
            using var json = JsonDocument.Parse(text);
            return new Tokenizer(
                json.RootElement,
                TokenizerConfig.Read(modelFolder).EndToken,
                new Budget(what, TimeSpan.FromSeconds(seconds), BytesToLoad, stop),
                new Budget(what, BeyondOwnTime, BytesAnyText, stop)
            );
        }
        catch (Exception error)
            when (error
                    is JsonException
                        or KeyNotFoundException
                        or InvalidOperationException
                        or FormatException
                        or IndexOutOfRangeException
                        or NullReferenceException
                        or ArgumentException
            )
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

    /// <summary>The tokens of a text; <paramref name="addSpecial"/> puts those around it that the model's
    /// post-processor names.</summary>
    public int[] Encode(string text, bool addSpecial = false)
    {
        var found = Spans(text).Select(token => token.Id);
        return addSpecial ? [.. around.Before, .. found, .. around.After] : [.. found];
    }

    /// <summary>The tokens that the post-processor puts before a text (a beginning-of-sequence token, say).</summary>
    public IReadOnlyList<int> Prefix => around.Before;

    /// <summary>The tokens of a text with the characters each stands for.</summary>
    public IReadOnlyList<TokenSpan> Spans(string text)
    {
        using var piece = budget.Piece(OwnTime(text.Length), (long)BytesPerUnit * text.Length);
        var found = new List<TokenSpan>(text.Length / 4 + 4);
        foreach (var (rawId, part) in raw.Split(NormalizedString.Of(NormalizedString.WellFormed(text), piece)))
        {
            if (rawId is { } whole)
            {
                found.Add(new(whole, part.From(0), part.To(part.Length - 1)));
                continue;
            }
            foreach (var (id, stretch) in normalized.Split(normalize(part)))
            {
                if (id is { } token)
                    found.Add(new(token, stretch.From(0), stretch.To(stretch.Length - 1)));
                else
                    Encode(stretch, found, piece);
            }
        }
        return found;
    }

    /// <summary>The text of tokens; bytes that are no UTF-8 become U+FFFD.</summary>
    public string Decode(IReadOnlyList<int> ids, bool skipSpecial = true)
    {
        List<string> spelled = [.. ids.Where(id => HasText(id, skipSpecial)).Select(id => tokens[id])];
        var units = spelled.Sum(token => (long)token.Length);
        using var piece = budget.Piece(OwnTime(units), BytesPerUnit * units);
        return string.Concat(decode(spelled, piece));
    }

    /// <summary>Whether decoding looks at a token at all.</summary>
    internal bool HasText(int id, bool skipSpecial) => !(skipSpecial && special.Contains(id)) && tokens.ContainsKey(id);

    // Ordinary tokenizers need 0.2 to 2 µs and up to 100 bytes for a character.
    private static TimeSpan OwnTime(long units) => TimeSpan.FromMilliseconds(5 + 0.005 * units);

    private void Encode(NormalizedString stretch, List<TokenSpan> found, Budget budget)
    {
        foreach (var piece in pieces.Split(stretch))
        {
            // Spelled in bytes, a piece is short already.
            if (pieces.Bytes)
                Add(piece);
            else
                foreach (var part in model.Cut(piece))
                    Add(part);
        }

        void Add(NormalizedString piece)
        {
            if (piece.Length == 0)
                return;
            if (!recall.TryGetValue(piece.Text, out var spans))
                spans = EncodePiece(piece.Text.ToString(), budget);
            budget.Spend();
            foreach (var span in spans)
                found.Add(new(span.Id, piece.From(span.Start), piece.To(span.End - 1)));
        }
    }

    private TokenSpan[] EncodePiece(string text, Budget budget)
    {
        var piece = pieces.Bytes
            ? ByteAlphabet.Encode(NormalizedString.Of(text, budget))
            : NormalizedString.Of(text, budget);
        var at = 0;
        var spans = new List<TokenSpan>();
        foreach (var (id, length) in model.Encode(piece.Text.ToString(), budget))
        {
            // A later byte of a character takes no length of its own; it stands for the character as the first does.
            var first = length == 0 ? Math.Max(0, at - 1) : at;
            spans.Add(new(id, piece.From(first), piece.To(Math.Max(first, at + length - 1))));
            at += length;
        }
        TokenSpan[] result = [.. spans];
        if (
            text.Length <= LongestRemembered
            && Volatile.Read(ref memories) < MostRemembered
            && remembered.TryAdd(text, result)
        )
            Interlocked.Increment(ref memories);
        return result;
    }
}
