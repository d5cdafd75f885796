using System.Text;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>The segmentation of the highest probability, every token for itself.</summary>
internal sealed class Unigram : IModel
{
    private const double UnknownPenalty = 10;

    private readonly Dictionary<string, int> ids = [];
    private readonly List<double> scores = [];
    private readonly Trie words = new();
    private readonly int? unknown;
    private readonly int[]? bytes;
    private readonly double unknownScore;

    public Unigram(JsonElement json, Budget budget)
    {
        foreach (var entry in json.GetProperty("vocab").EnumerateArray())
        {
            var word = entry[0].GetString()!;
            budget.Spend(IModel.BytesPerEntry + 2 * word.Length);
            ids[word] = scores.Count;
            words.Add(word, scores.Count, budget);
            scores.Add(entry[1].GetDouble());
        }
        unknown = json.Part("unk_id")?.GetInt32();
        if (unknown >= scores.Count)
            throw new UserFault(
                "tokenizer.json is damaged: the unknown token is not in the vocabulary.",
                $"unk_id {unknown} of {scores.Count}"
            );
        bytes = json.Flag("byte_fallback", false) ? IModel.Bytes(ids) : null;
        unknownScore = (scores.Count > 0 ? scores.Min() : 0) - UnknownPenalty;
    }

    public IReadOnlyDictionary<string, int> Ids => ids;

    private record struct LatticeStep(double Score, int Start, int Id);

    public IReadOnlyList<(int Id, int Length)> Encode(string piece, Budget budget)
    {
        var best = new LatticeStep[piece.Length + 1]; // the best way to each place
        Array.Fill(best, new(0, -1, -1), 1, piece.Length);
        var start = 0;
        while (start < piece.Length)
        {
            Rune.DecodeFromUtf16(piece.AsSpan(start), out _, out var length);
            var covered = false;
            int node = 0,
                end = start;
            while (end < piece.Length && (node = words.Step(node, piece[end])) >= 0)
            {
                budget.Spend();
                end++;
                if (words.Value(node) is not (>= 0 and var id))
                    continue;
                Offer(start, end, id, scores[id]);
                covered |= end - start == length;
            }
            if (!covered)
                Offer(start, start + length, unknown ?? -1, unknownScore);
            start += length;
        }
        return Walk(piece, best);

        void Offer(int start, int end, int id, double score)
        {
            score += best[start].Score;
            if (best[end].Start < 0 || score > best[end].Score)
                best[end] = new(score, start, id);
        }
    }

    private List<(int Id, int Length)> Walk(string piece, LatticeStep[] best)
    {
        var parts = new List<(int Start, int End)>();
        var fuses = false;
        var end = piece.Length;
        while (end > 0)
        {
            var step = best[end];
            var strange = step.Id == (unknown ?? -1);
            // Neighbours that are unknown are one.
            if (strange && fuses)
                parts[^1] = (step.Start, parts[^1].End);
            else
                parts.Add((step.Start, end));
            fuses = strange;
            end = step.Start;
        }
        var tokens = new List<(int Id, int Length)>(parts.Count);
        foreach (var (start, stop) in Enumerable.Reverse(parts))
        {
            if (ids.TryGetValue(piece[start..stop], out var id))
                tokens.Add((id, stop - start));
            else if (bytes is null || !IModel.AddBytes(tokens, bytes, piece.AsSpan(start, stop - start)))
                tokens.Add(
                    (
                        unknown
                            ?? throw new UserFault(
                                "The tokenizer has no token for a text and no unknown token.",
                                piece[start..stop]
                            ),
                        stop - start
                    )
                );
        }
        return tokens;
    }
}
