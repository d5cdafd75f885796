using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Ranks that share the tokens of each row: each computes its own (<see cref="ContextSlice"/>), and attention
/// gathers the keys and values of all (Llama 3, Grattafiori et al. 2024, arXiv 2407.21783, section 3.3.2).</summary>
/// <param name="group">The ranks.</param>
internal sealed class ContextParallel(IProcessGroup group)
{
    /// <summary>How many gathers and sums the ranks have made.</summary>
    public long Calls { get; private set; }

    public int Ranks => group.Size;

    /// <summary>What this rank computes of a micro-batch.</summary>
    public MicroBatch Slice(MicroBatch whole) => ContextSlice.Of(whole, group.Rank, group.Size);

    /// <summary>Keys and values of whole rows from those of each rank's tokens.</summary>
    /// <param name="k">(B, T / c, KV, D).</param>
    /// <param name="v">As k.</param>
    /// <returns>(B, T, KV, D) each, in the order of the row.</returns>
    public (Tensor Keys, Tensor Values) AllGather(Tensor k, Tensor v)
    {
        using var scope = NewDisposeScope();
        var own = stack([k, v]); // (2, B, T / c, KV, D)
        var all = empty([Ranks, .. own.shape], own.dtype, own.device);
        Calls++;
        group.AllGather(own, all);
        var piece = own.shape[2] / 2;
        // (2, B, T, KV, D)
        var whole = cat([.. Pieces.Select(at => all.select(0, at.Rank).narrow(2, at.Half * piece, piece))], 2);
        return (whole.select(0, 0).MoveToOuterDisposeScope(), whole.select(0, 1).MoveToOuterDisposeScope());
    }

    /// <summary>Gradients of this rank's keys and values from those that each rank has for whole rows: their
    /// sum.</summary>
    /// <param name="dk">(B, T, KV, D).</param>
    /// <param name="dv">As dk.</param>
    /// <returns>(B, T / c, KV, D) each.</returns>
    public (Tensor K, Tensor V) ReduceScatter(Tensor dk, Tensor dv)
    {
        using var scope = NewDisposeScope();
        var (rows, tokens) = (dk.shape[0], dk.shape[1] / Ranks);
        var sum = empty([2, rows, tokens, dk.shape[2], dk.shape[3]], dk.dtype, dk.device);
        var all = empty([Ranks, .. sum.shape], dk.dtype, dk.device);
        var piece = tokens / 2;
        var from = 0L;
        foreach (var (rank, half) in Pieces)
        {
            var to = all.select(0, rank).narrow(2, half * piece, piece); // (2, B, T / 2c, KV, D)
            to.select(0, 0).copy_(dk.narrow(1, from, piece));
            to.select(0, 1).copy_(dv.narrow(1, from, piece));
            from += piece;
        }
        Calls++;
        group.ReduceScatter(all, sum);
        return (sum.select(0, 0).MoveToOuterDisposeScope(), sum.select(0, 1).MoveToOuterDisposeScope());
    }

    /// <summary>Who has each piece of a row, and whether it is the first or second of the rank's.</summary>
    private IEnumerable<(int Rank, int Half)> Pieces =>
        Enumerable.Range(0, 2 * Ranks).Select(piece => piece < Ranks ? (piece, 0) : (2 * Ranks - 1 - piece, 1));
}
