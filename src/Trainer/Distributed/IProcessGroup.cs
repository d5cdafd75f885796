using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>What a reduction does with the values of all ranks.</summary>
internal enum ReduceOp
{
    Sum,
    Min,
    Max,
}

/// <summary>A tensor that another rank gets or gives.</summary>
internal readonly record struct PeerTensor(Tensor Tensor, int Peer);

/// <summary>Ranks that communicate, as torch.distributed's process group. Every rank calls the same verbs in the same
/// order with the same sizes and types. Tensors are contiguous. On a GPU a verb is queued and returns; on a CPU it is
/// done when it returns.</summary>
internal interface IProcessGroup : IDisposable
{
    /// <summary>Number of this rank, from 0.</summary>
    int Rank { get; }

    /// <summary>Number of ranks: the world.</summary>
    int Size { get; }

    /// <summary>all_reduce: every rank's tensor becomes the reduction over all ranks. Sums of bf16 and fp16 are rounded
    /// after each addition.</summary>
    void AllReduce(Tensor tensor, ReduceOp op = ReduceOp.Sum);

    /// <summary>reduce_scatter_tensor: the reduction over all ranks, of which each rank gets its slice.</summary>
    /// <param name="input">Size · n elements.</param>
    /// <param name="output">n elements: slice Rank. No part of <paramref name="input"/>.</param>
    /// <param name="op">The reduction.</param>
    void ReduceScatter(Tensor input, Tensor output, ReduceOp op = ReduceOp.Sum);

    /// <summary>all_gather_into_tensor: the slices of all ranks, in their order.</summary>
    /// <param name="input">n elements of any type; slice Rank of <paramref name="output"/>, or outside it.</param>
    /// <param name="output">Size · n elements.</param>
    void AllGather(Tensor input, Tensor output);

    /// <summary>broadcast: every rank's tensor becomes that of one rank.</summary>
    void Broadcast(Tensor tensor, int source);

    /// <summary>batch_isend_irecv: sends and receives together, which cannot deadlock whatever their order. Several
    /// tensors between two ranks arrive in the order in which they were sent.</summary>
    void Exchange(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives);

    /// <summary>The numbers of every rank, in the order of the ranks. Waits for all ranks.</summary>
    /// <param name="values">As many on every rank.</param>
    /// <param name="limit">How long at most; null is the engine's limit.</param>
    /// <exception cref="Memopt.Core.UserFault">The time is over.</exception>
    long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null);

    /// <summary>new_group: a group of the ranks that give the same color, ordered by key, then by rank.</summary>
    IProcessGroup Split(int color, int key);
}

/// <summary>Decisions that all ranks make alike.</summary>
internal static class ProcessGroups
{
    /// <summary>Waits until every rank is here.</summary>
    /// <param name="group">The ranks.</param>
    /// <param name="limit">How long at most; null is the engine's limit.</param>
    public static void Barrier(this IProcessGroup group, TimeSpan? limit = null) => group.AllGather([0], limit);

    /// <summary>The reduction of each number over all ranks. A decision that depends on one rank's data (a NaN, memory
    /// that ran out, a stop) goes through it: a verb that some ranks call and others do not is a hang.</summary>
    public static long[] Agree(this IProcessGroup group, ReadOnlySpan<long> values, ReduceOp op)
    {
        var all = group.AllGather(values);
        var result = all[..values.Length];
        for (var i = values.Length; i < all.Length; i++)
        {
            ref var value = ref result[i % values.Length];
            value = op switch
            {
                ReduceOp.Sum => checked(value + all[i]),
                ReduceOp.Min => Math.Min(value, all[i]),
                _ => Math.Max(value, all[i]),
            };
        }
        return result;
    }
}
