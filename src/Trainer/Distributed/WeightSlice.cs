using Memopt.Trainer.Plan.Blocks;
using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>What a tensor parallel rank has of a weight.</summary>
/// <param name="Shape">Of the whole weight.</param>
/// <param name="Dim">The dimension that is divided.</param>
/// <param name="Ranges">What the rank has of it, one after another.</param>
/// <param name="IsPartial">Whether the rank computes a part of the gradient only, as of a weight that several ranks
/// have and each uses for its own heads: the gradient is the sum over the ranks.</param>
internal sealed record WeightSlice(long[] Shape, int Dim, IReadOnlyList<SplitRange> Ranges, bool IsPartial)
{
    /// <summary>The rank's part of a whole weight, contiguous; the weight itself where the rank has all of
    /// it.</summary>
    public Tensor Take(Tensor whole)
    {
        if (Ranges is [{ Start: 0 } all] && all.Length == Shape[Dim])
            return whole;
        using var scope = NewDisposeScope();
        return cat([.. Ranges.Select(range => whole.narrow(Dim, range.Start, range.Length))], Dim)
            .contiguous()
            .MoveToOuterDisposeScope();
    }

    /// <summary>The whole weight from the parts of all ranks, on every rank.</summary>
    /// <param name="part">This rank's.</param>
    /// <param name="group">The tensor parallel ranks.</param>
    public Tensor Gather(Tensor part, IProcessGroup group) => Add(part, group, range => range.IsOwned);

    /// <summary>The sum of a gradient over the ranks, each of which has computed a part of it; this rank's part of the
    /// sum.</summary>
    public Tensor Reduce(Tensor part, IProcessGroup group)
    {
        using var scope = NewDisposeScope();
        return Take(Add(part, group, _ => true)).MoveToOuterDisposeScope();
    }

    private Tensor Add(Tensor part, IProcessGroup group, Func<SplitRange, bool> counts)
    {
        using var scope = NewDisposeScope();
        var whole = zeros(Shape, part.dtype, part.device);
        long at = 0;
        foreach (var range in Ranges)
        {
            if (counts(range))
                whole.narrow(Dim, range.Start, range.Length).copy_(part.narrow(Dim, at, range.Length));
            at += range.Length;
        }
        group.AllReduce(whole);
        return whole.MoveToOuterDisposeScope();
    }
}
