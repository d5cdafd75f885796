using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>BERT's way: from the left the longest word of the vocabulary; a piece that cannot be covered is unknown as
/// a whole.</summary>
internal sealed class WordPieces : IModel
{
    private readonly Dictionary<string, int> ids;
    private readonly Trie words = new();
    private readonly int unknown,
        longest,
        within; // within: the node at which words begin that go on inside a piece

    public WordPieces(JsonElement json, Budget budget)
    {
        ids = IModel.Vocabulary(json, budget);
        foreach (var (word, token) in ids)
            words.Add(word, token, budget);
        foreach (var unit in json.Text("continuing_subword_prefix") ?? "##")
            within = within < 0 ? -1 : words.Step(within, unit);
        longest = json.Part("max_input_chars_per_word")?.GetInt32() ?? 100;
        var name = json.Text("unk_token") ?? "[UNK]";
        unknown = ids.TryGetValue(name, out var id)
            ? id
            : throw new UserFault("tokenizer.json is damaged: the unknown token is not in the vocabulary.", name);
    }

    public IReadOnlyDictionary<string, int> Ids => ids;

    public IReadOnlyList<(int Id, int Length)> Encode(string piece, Budget budget)
    {
        if (piece.EnumerateRunes().Count() > longest)
            return [(unknown, piece.Length)];
        var tokens = new List<(int Id, int Length)>();
        for (var start = 0; start < piece.Length; start += tokens[^1].Length)
        {
            if (Longest(piece, start, budget) is not { } token)
                return [(unknown, piece.Length)];
            tokens.Add(token);
        }
        return tokens;
    }

    private (int Id, int Length)? Longest(string piece, int start, Budget budget)
    {
        (int Id, int Length)? found = null;
        var node = start == 0 ? 0 : within;
        var end = start;
        while (node >= 0 && end < piece.Length && (node = words.Step(node, piece[end])) >= 0)
        {
            budget.Spend();
            end++;
            if (words.Value(node) is >= 0 and var id)
                found = (id, end - start);
        }
        return found;
    }
}
