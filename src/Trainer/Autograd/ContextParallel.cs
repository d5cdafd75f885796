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

    /// <summary>What this rank computes of a micro-batch.</summary>
    public MicroBatch Slice(MicroBatch whole) => ContextSlice.Of(whole, group.Rank, group.Size);

    /// <summary>Keys and values of all ranks: (2, N, KV, D) → (c, 2, N, KV, D).</summary>
    public Tensor AllGather(Tensor own)
    {
        var all = empty([group.Size, .. own.shape], own.dtype, own.device);
        Calls++;
        group.AllGather(own, all);
        return all;
    }

    /// <summary>The sum over the ranks of the gradients of keys and values, of which each gets its own: (c, 2, N, KV,
    /// D) → (2, N, KV, D).</summary>
    public Tensor ReduceScatter(Tensor all)
    {
        var own = empty(all.shape[1..], all.dtype, all.device);
        Calls++;
        group.ReduceScatter(all, own);
        return own;
    }
}
