namespace Memopt.Trainer.Plan.Blocks;

/// <summary>How tensor parallel ranks divide a weight: along one dimension, which is one part or several (q, k and v of
/// a fused projection), each of equal blocks (heads, channels). A rank has consecutive blocks of every part; of a part
/// with fewer blocks than ranks, neighbouring ranks have the same block (grouped queries).</summary>
/// <param name="Dim">0 divides the outputs of a linear (column parallel in Megatron-LM), 1 its inputs (row
/// parallel).</param>
/// <param name="Parts">In the order of the dimension.</param>
internal sealed record TensorSplit(int Dim, params IReadOnlyList<SplitPart> Parts)
{
    /// <summary>Whether several ranks have the same block.</summary>
    public bool IsShared(int ranks) => Parts.Any(part => part.Blocks < ranks);

    /// <summary>What a rank has of the dimension.</summary>
    public IReadOnlyList<SplitRange> Ranges(int ranks, int rank)
    {
        var ranges = new List<SplitRange>();
        long start = 0;
        foreach (var part in Parts)
        {
            var first = First(part, ranks, rank);
            var count = Math.Max(1, First(part, ranks, rank + 1) - first);
            var owned = part.Blocks >= ranks || rank == 0 || First(part, ranks, rank - 1) != first;
            ranges.Add(new(start + first * part.BlockSize, count * part.BlockSize, owned));
            start += part.Blocks * part.BlockSize;
        }
        return ranges;
    }

    /// <summary>How many elements of the dimension a rank has.</summary>
    public long Length(int ranks, int rank) => Ranges(ranks, rank).Sum(range => range.Length);

    private static long First(SplitPart part, int ranks, int rank) => part.Blocks * rank / ranks;
}

/// <summary>A part of a dimension: equal blocks, one after another.</summary>
internal readonly record struct SplitPart(long Blocks, long BlockSize);

/// <summary>A range of a dimension that a rank has.</summary>
/// <param name="Start">Its first element in the whole.</param>
/// <param name="Length">Elements.</param>
/// <param name="IsOwned">Whether this is the first rank that has it: the one that counts it in a norm, and gives it to
/// a file.</param>
internal readonly record struct SplitRange(long Start, long Length, bool IsOwned);
