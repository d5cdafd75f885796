using System.Text;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>Byte-pair encoding: neighbours are merged in the order in which the merges were learned.</summary>
internal sealed class BytePairs : IModel
{
    private readonly Dictionary<string, int> ids;
    private readonly int[] basic = new int[0x10000]; // the tokens of single characters, -1 where there is none
    private readonly Dictionary<long, (int Rank, int Id)> merges = [];
    private readonly HashSet<int>? joints; // the two characters on either side of a merge
    private readonly string prefix,
        suffix;
    private readonly bool ignoreMerges,
        fuseUnknown;
    private readonly int? unknown;
    private readonly int[]? bytes;

    public BytePairs(JsonElement model, Budget budget)
    {
        if (model.Part("dropout") is { ValueKind: JsonValueKind.Number } dropout && dropout.GetDouble() > 0)
            throw Component.Unsupported("BPE dropout", dropout.ToString());
        ids = IModel.Vocabulary(model, budget);
        Array.Fill(basic, -1);
        foreach (var (word, id) in ids)
        {
            if (word.Length == 1)
                basic[word[0]] = id;
        }
        (prefix, suffix) = (model.Text("continuing_subword_prefix") ?? "", model.Text("end_of_word_suffix") ?? "");
        ignoreMerges = model.Flag("ignore_merges", false);
        fuseUnknown = model.Flag("fuse_unk", false);
        bytes = model.Flag("byte_fallback", false) ? IModel.Bytes(ids) : null;
        unknown = model.Text("unk_token") is { Length: > 0 } token ? Known(token) : null;

        // Words know their ends, unknown neighbours fuse or are left out from between others: then only the whole piece
        // will do.
        var allKnown =
            bytes is not null
            && Enumerable.Range(0, 256).All(value => bytes[value] >= 0 || value < 0x80 && basic[value] >= 0);
        var cuts =
            !ignoreMerges && prefix.Length + suffix.Length == 0 && (allKnown || unknown is not null && !fuseUnknown);
        if (cuts)
            joints = [];
        foreach (var merge in model.GetProperty("merges").EnumerateArray())
        {
            budget.Spend(IModel.BytesPerEntry);
            var (left, right) =
                merge.ValueKind == JsonValueKind.Array
                    ? (merge[0].GetString()!, merge[1].GetString()!)
                    : Halves(merge.GetString()!);
            merges[Pair(Known(left), Known(right))] = (
                merges.Count,
                Known(left + right[(right.StartsWith(prefix, StringComparison.Ordinal) ? prefix.Length : 0)..])
            );
            joints?.Add(left[^1] << 16 | right[0]);
        }
        // Bytes that merge stand for other characters than they are written with.
        if (bytes is not null && bytes.Any(first => bytes.Any(second => merges.ContainsKey(Pair(first, second)))))
            joints = null;
    }

    public IReadOnlyDictionary<string, int> Ids => ids;

    // Times a prime, not shifted: a long's hash is its halves' XOR, by which all doubles would be one.
    private static long Pair(int left, int right) => left * 4_294_967_291 + right;

    private int Known(string token) =>
        ids.TryGetValue(token, out var id)
            ? id
            : throw new UserFault(
                "tokenizer.json is damaged: a merge or the unknown token is not in the vocabulary.",
                token
            );

    private static (string, string) Halves(string merge)
    {
        var space = merge.IndexOf(' ');
        return space > 0 && space < merge.Length - 1
            ? (merge[..space], merge[(space + 1)..])
            : throw new UserFault("tokenizer.json has a merge without two parts.", merge);
    }

    /// <summary>A piece in parts that no merge can reach across. Models without a pre-tokenizer would else see a whole
    /// document as one word; between two characters that no merge joins its words are independent.
    /// </summary>
    public IEnumerable<NormalizedString> Cut(NormalizedString piece)
    {
        if (joints is null)
            return [piece];
        var units = piece.Text;
        var (parts, start) = (new List<NormalizedString>(), 0);
        for (var i = 1; i < units.Length; i++)
        {
            if (char.IsLowSurrogate(units[i]) || joints.Contains(units[i - 1] << 16 | units[i]))
                continue;
            parts.Add(piece.Slice(start, i - start));
            start = i;
        }
        parts.Add(piece.Slice(start, units.Length - start));
        return parts;
    }

    public IReadOnlyList<(int Id, int Length)> Encode(string piece, Budget budget) =>
        ignoreMerges && ids.TryGetValue(piece, out var whole) ? [(whole, piece.Length)] : Merge(Symbols(piece), budget);

    private List<(int Id, int Length)> Symbols(string piece)
    {
        var symbols = new List<(int Id, int Length)>(piece.Length);
        for (int i = 0, length; i < piece.Length; i += length)
        {
            length = char.IsHighSurrogate(piece[i]) ? 2 : 1;
            if (Find(piece, i, length) is >= 0 and var id)
                symbols.Add((id, length));
            else if (bytes is not null && IModel.AddBytes(symbols, bytes, piece.AsSpan(i, length)))
                continue;
            else if (unknown is { } unk && fuseUnknown && symbols.Count > 0 && symbols[^1].Id == unk)
                symbols[^1] = (unk, symbols[^1].Length + length);
            else if (unknown is { } one)
                symbols.Add((one, length));
            // A character without a token is left out where there is no unknown token, as the reference does.
        }
        return symbols;
    }

    private int Find(string piece, int at, int length)
    {
        var (before, after) = (at == 0 ? "" : prefix, at + length == piece.Length ? suffix : "");
        if (length == 1 && before.Length + after.Length == 0)
            return basic[piece[at]];
        return ids.TryGetValue(string.Concat(before, piece.AsSpan(at, length), after), out var id) ? id : -1;
    }

    private record struct Symbol(int Id, int Length, int Previous, int Next);

    /// <summary>Merges the pair of the lowest rank, the leftmost first, until none is left; a heap of candidates keeps
    /// it O(n log n).</summary>
    private List<(int Id, int Length)> Merge(List<(int Id, int Length)> tokens, Budget budget)
    {
        if (tokens.Count < 2)
            return tokens;
        var symbols = new Symbol[tokens.Count];
        var candidates = new PriorityQueue<(int Left, int LeftId, int RightId, int NewId), long>(symbols.Length);
        for (var i = 0; i < symbols.Length; i++)
            symbols[i] = new(tokens[i].Id, tokens[i].Length, i - 1, i + 1);
        for (var i = 0; i < symbols.Length; i++)
            Offer(i);

        while (candidates.TryDequeue(out var pair, out _))
        {
            budget.Spend();
            ref var left = ref symbols[pair.Left];
            if (left.Id != pair.LeftId || left.Next >= symbols.Length || symbols[left.Next].Id != pair.RightId)
                continue; // one of the two has merged since
            ref var right = ref symbols[left.Next];
            left = new(pair.NewId, left.Length + right.Length, left.Previous, right.Next);
            right.Id = -1;
            if (left.Next < symbols.Length)
                symbols[left.Next].Previous = pair.Left;
            Offer(left.Previous);
            Offer(pair.Left);
        }

        tokens.Clear();
        for (var i = 0; i < symbols.Length; i = symbols[i].Next)
            tokens.Add((symbols[i].Id, symbols[i].Length));
        return tokens;

        void Offer(int left)
        {
            if (left < 0 || symbols[left].Next >= symbols.Length)
                return;
            var (a, b) = (symbols[left].Id, symbols[symbols[left].Next].Id);
            if (merges.TryGetValue(Pair(a, b), out var merge))
                candidates.Enqueue((left, a, b, merge.Id), (long)merge.Rank << 32 | (uint)left);
        }
    }
}
