using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>A vocabulary of whole words.</summary>
internal sealed class WholeWords(JsonElement json, Budget load) : IModel
{
    private readonly Dictionary<string, int> ids = IModel.Vocabulary(json, load);
    private readonly string unknown = json.Text("unk_token") ?? "<unk>";

    public IReadOnlyDictionary<string, int> Ids => ids;

    public IReadOnlyList<(int Id, int Length)> Encode(string piece, Budget budget) =>
        ids.TryGetValue(piece, out var id) || ids.TryGetValue(unknown, out id)
            ? [(id, piece.Length)]
            : throw new UserFault("The tokenizer has no token for a word and no unknown token.", piece);
}
