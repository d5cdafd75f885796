using System.Collections.Concurrent;
using System.Text;
using System.Text.Json;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>The third stage: byte-pair encoding of one piece.</summary>
internal sealed class BytePairs
{
    private const int LongestRemembered = 64, MostRemembered = 1 << 16;

    private readonly Dictionary<string, int> ids = [];
    private readonly Dictionary<(int, int), (int Rank, int Id)> merges = [];
    private readonly ConcurrentDictionary<string, (int Id, int Length)[]> remembered = new();
    private readonly bool ignoreMerges, fuseUnknown, byteFallback;
    private readonly int? unknown;

    public BytePairs(JsonElement model)
    {
        if ((model.Text("type") ?? (model.Part("merges") is null ? "without merges" : "BPE")) is var type && type != "BPE")
            throw Component.Unsupported($"the model \"{type}\"", null);
        foreach (var key in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
        {
            if (!string.IsNullOrEmpty(model.Text(key))) throw Component.Unsupported(key, model.Text(key));
        }
        if (model.Part("dropout") is { ValueKind: JsonValueKind.Number } dropout && dropout.GetDouble() > 0)
            throw Component.Unsupported("BPE dropout", dropout.ToString());

        foreach (var entry in model.GetProperty("vocab").EnumerateObject()) ids[entry.Name] = entry.Value.GetInt32();
        var rank = 0;
        foreach (var merge in model.GetProperty("merges").EnumerateArray())
        {
            var (left, right) = merge.ValueKind == JsonValueKind.Array
                ? (merge[0].GetString()!, merge[1].GetString()!)
                : Halves(merge.GetString()!);
            merges[(Known(left), Known(right))] = (rank++, Known(left + right));
        }
        ignoreMerges = model.Flag("ignore_merges", false);
        fuseUnknown = model.Flag("fuse_unk", false);
        byteFallback = model.Flag("byte_fallback", false);
        unknown = model.Text("unk_token") is { } token ? Known(token) : null;
    }

    public IReadOnlyDictionary<string, int> Ids => ids;

    private int Known(string token) =>
        ids.TryGetValue(token, out var id) ? id : throw new UserFault("tokenizer.json is damaged: a merge or the unknown token is not in the vocabulary.", token);

    private static (string, string) Halves(string merge)
    {
        var space = merge.IndexOf(' ');
        return space > 0 ? (merge[..space], merge[(space + 1)..]) : throw new UserFault("tokenizer.json has a merge without two parts.", merge);
    }

    /// <summary>The tokens of a piece and how many UTF-16 units of it each takes.</summary>
    public (int Id, int Length)[] Encode(string piece)
    {
        if (ignoreMerges && ids.TryGetValue(piece, out var whole)) return [(whole, piece.Length)];
        if (remembered.TryGetValue(piece, out var known)) return known;
        var tokens = Merge(Characters(piece));
        if (piece.Length <= LongestRemembered && remembered.Count < MostRemembered) remembered[piece] = tokens;
        return tokens;
    }

    private List<(int Id, int Length)> Characters(string piece)
    {
        var symbols = new List<(int Id, int Length)>(piece.Length);
        for (var i = 0; i < piece.Length;)
        {
            var rune = Rune.GetRuneAt(piece, i);
            var length = rune.Utf16SequenceLength;
            if (ids.TryGetValue(rune.ToString(), out var id)) symbols.Add((id, length));
            else if (byteFallback && FallbackIds(rune) is { } bytes) symbols.AddRange(bytes.Select((value, index) => (value, index == 0 ? length : 0)));
            else if (unknown is { } unk && fuseUnknown && symbols.Count > 0 && symbols[^1].Id == unk) symbols[^1] = (unk, symbols[^1].Length + length);
            else if (unknown is { } one) symbols.Add((one, length));
            else throw new UserFault("The tokenizer has no token for a character and no unknown token.", $"U+{rune.Value:X4}");
            i += length;
        }
        return symbols;
    }

    private List<int>? FallbackIds(Rune rune)
    {
        var found = new List<int>();
        foreach (var value in Encoding.UTF8.GetBytes(rune.ToString()))
        {
            if (!ids.TryGetValue($"<0x{value:X2}>", out var id)) return null;
            found.Add(id);
        }
        return found;
    }

    /// <summary>Merges the pair of the lowest rank, the leftmost first, until none is left; a heap of candidates keeps it O(n log n).</summary>
    private (int Id, int Length)[] Merge(List<(int Id, int Length)> symbols)
    {
        var count = symbols.Count;
        var (id, length, next, previous) = (new int[count], new int[count], new int[count], new int[count]);
        var heap = new PriorityQueue<(int Left, int LeftId, int RightId, int NewId), (int Rank, int At)>();
        for (var i = 0; i < count; i++) ((id[i], length[i]), next[i], previous[i]) = (symbols[i], i + 1, i - 1);

        void Offer(int left)
        {
            if (left < 0 || next[left] >= count) return;
            var (a, b) = (id[left], id[next[left]]);
            if (merges.TryGetValue((a, b), out var merge)) heap.Enqueue((left, a, b, merge.Id), (merge.Rank, left));
        }

        for (var i = 0; i < count; i++) Offer(i);
        while (heap.TryDequeue(out var pair, out _))
        {
            var left = pair.Left;
            var right = id[left] < 0 ? count : next[left];
            if (right >= count || id[left] != pair.LeftId || id[right] != pair.RightId) continue;   // one of the two has merged since
            id[left] = pair.NewId;
            length[left] += length[right];
            id[right] = -1;
            next[left] = next[right];
            if (next[left] < count) previous[next[left]] = left;
            Offer(previous[left]);
            Offer(left);
        }

        var tokens = new List<(int Id, int Length)>();
        for (var i = 0; i < count; i = next[i]) tokens.Add((id[i], length[i]));
        return [.. tokens];
    }
}
