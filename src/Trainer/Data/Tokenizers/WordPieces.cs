using System.Text;
using System.Text.Json;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>BERT's way: from the left the longest word of the vocabulary; a piece that cannot be covered is unknown as a whole.</summary>
internal sealed class WordPieces : IModel
{
    private readonly Dictionary<string, int> ids;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> lookup;
    private readonly string prefix;
    private readonly int unknown, longest, longestWord;

    public WordPieces(JsonElement json)
    {
        ids = IModel.Vocabulary(json);
        lookup = ids.GetAlternateLookup<ReadOnlySpan<char>>();
        prefix = json.Text("continuing_subword_prefix") ?? "##";
        longest = json.Part("max_input_chars_per_word")?.GetInt32() ?? 100;
        var name = json.Text("unk_token") ?? "[UNK]";
        unknown = ids.TryGetValue(name, out var id) ? id : throw new UserFault("tokenizer.json is damaged: the unknown token is not in the vocabulary.", name);
        longestWord = ids.Keys.Max(word => word.Length);
    }

    public IReadOnlyDictionary<string, int> Ids => ids;

    public IReadOnlyList<(int Id, int Length)> Encode(string piece)
    {
        if (piece.EnumerateRunes().Count() > longest) return [(unknown, piece.Length)];
        var tokens = new List<(int Id, int Length)>();
        for (var start = 0; start < piece.Length; start += tokens[^1].Length)
        {
            if (Longest(piece, start) is not { } token) return [(unknown, piece.Length)];
            tokens.Add(token);
        }
        return tokens;
    }

    private (int Id, int Length)? Longest(string piece, int start)
    {
        var word = start == 0 ? piece : prefix + piece[start..];
        var head = start == 0 ? 0 : prefix.Length;
        for (var end = Math.Min(word.Length, longestWord); end > head; end--)
        {
            if (lookup.TryGetValue(word.AsSpan(0, end), out var id)) return (id, end - head);
        }
        return null;
    }
}

/// <summary>A vocabulary of whole words.</summary>
internal sealed class WholeWords(JsonElement json) : IModel
{
    private readonly Dictionary<string, int> ids = IModel.Vocabulary(json);
    private readonly string unknown = json.Text("unk_token") ?? "<unk>";

    public IReadOnlyDictionary<string, int> Ids => ids;

    public IReadOnlyList<(int Id, int Length)> Encode(string piece) => ids.TryGetValue(piece, out var id) || ids.TryGetValue(unknown, out id)
        ? [(id, piece.Length)]
        : throw new UserFault("The tokenizer has no token for a word and no unknown token.", piece);
}
