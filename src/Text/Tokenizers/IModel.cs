using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>The third stage: one piece to tokens of the vocabulary.</summary>
internal interface IModel
{
    IReadOnlyDictionary<string, int> Ids { get; }

    /// <summary>The tokens of a piece and how many UTF-16 units of it each takes.</summary>
    IReadOnlyList<(int Id, int Length)> Encode(string piece, Budget budget);

    /// <summary>A piece in parts that can be encoded each for itself with the same result.</summary>
    IEnumerable<NormalizedString> Cut(NormalizedString piece) => [piece];

    public static IModel Read(JsonElement json, Budget budget) =>
        (json.Text("type") ?? Guess(json)) switch
        {
            "BPE" => new BytePairs(json, budget),
            "Unigram" => new Unigram(json, budget),
            "WordPiece" => new WordPieces(json, budget),
            "WordLevel" => new WholeWords(json, budget),
            var other => throw Component.Unsupported($"the model \"{other}\"", null),
        };

    // The oldest files do not name their model.
    private static string Guess(JsonElement json) =>
        json.Part("merges") is not null ? "BPE"
        : json.Part("unk_id") is not null ? "Unigram"
        : json.Part("max_input_chars_per_word") is not null ? "WordPiece"
        : "WordLevel";

    /// <summary>What a word or a merge takes in memory, beside its text.</summary>
    public const int BytesPerEntry = 128;

    /// <summary>The vocabulary of a model that writes it as an object.</summary>
    public static Dictionary<string, int> Vocabulary(JsonElement json, Budget budget)
    {
        var vocab = json.GetProperty("vocab");
        var ids = new Dictionary<string, int>();
        foreach (var entry in vocab.EnumerateObject())
        {
            var word = entry.Name;
            budget.Spend(BytesPerEntry + 2 * word.Length);
            ids[word] = entry.Value.GetInt32();
        }
        return ids;
    }

    /// <summary>The tokens like &lt;0x0A&gt; by their bytes, -1 where there is none.</summary>
    public static int[] Bytes(IReadOnlyDictionary<string, int> ids) =>
        [.. Enumerable.Range(0, 256).Select(value => ids.TryGetValue($"<0x{value:X2}>", out var id) ? id : -1)];

    /// <summary>Adds the byte tokens of a text, of which the first takes all its units; nothing if one of its bytes has
    /// no token.</summary>
    public static bool AddBytes(List<(int Id, int Length)> tokens, int[] bytes, ReadOnlySpan<char> text)
    {
        var length = text.Length;
        var values = System.Text.Encoding.UTF8.GetBytes(text.ToArray());
        if (values.Any(value => bytes[value] < 0))
            return false;
        foreach (var value in values)
        {
            tokens.Add((bytes[value], length));
            length = 0;
        }
        return true;
    }
}
