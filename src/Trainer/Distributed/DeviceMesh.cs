using Memopt.Core;

namespace Memopt.Trainer.Distributed;

/// <summary>The ranks of a run laid out along axes, as torch.distributed's DeviceMesh. Neighbours along the first axis
/// have neighbouring numbers, so that the axis that communicates most stays within a host: tensor, context, data
/// (the order of Megatron-LM).</summary>
/// <param name="all">Every rank.</param>
/// <param name="tensor">Ranks that share each layer's matrices (tensor parallel).</param>
/// <param name="context">Ranks that share the tokens of each row (context parallel).</param>
/// <param name="data">Ranks that have the same weights, and compute different micro-batches or different tokens: they
/// add up their gradients, and shard (ZeRO).</param>
internal sealed class DeviceMesh(IProcessGroup all, IProcessGroup tensor, IProcessGroup context, IProcessGroup data)
    : IDisposable
{
    public IProcessGroup Tensor => tensor;

    public IProcessGroup Context => context;

    public IProcessGroup Data => data;

    /// <summary>Ranks, or groups of ranks, that compute different micro-batches.</summary>
    public int Batches => data.Size / context.Size;

    /// <summary>Which of them this rank belongs to.</summary>
    public int Batch => data.Rank / context.Size;

    /// <summary>Every rank data parallel.</summary>
    public static DeviceMesh DataParallel(IProcessGroup all) =>
        new(all, new SingleProcessGroup(), new SingleProcessGroup(), all);

    /// <summary>Lays ranks out. All ranks call it.</summary>
    /// <param name="all">Every rank.</param>
    /// <param name="tensor">Ranks that share matrices.</param>
    /// <param name="context">Ranks that share rows.</param>
    /// <exception cref="UserFault">The number of ranks is no multiple of both together.</exception>
    public static DeviceMesh Of(IProcessGroup all, int tensor, int context)
    {
        var one = tensor * context;
        if (all.Size % one != 0)
            throw new UserFault(
                "The number of ranks does not fit the settings.",
                found: $"{all.Size} ranks, distributed.tensor = {tensor}, distributed.context = {context}",
                next: $"start a multiple of {one} ranks"
            );
        var rank = all.Rank;
        IProcessGroup Split(bool needed, int color) => needed ? all.Split(color, rank) : new SingleProcessGroup();
        return new(
            all,
            Split(tensor > 1, rank / tensor),
            Split(context > 1, rank / one * tensor + rank % tensor),
            tensor > 1 ? all.Split(rank % tensor, rank) : all
        );
    }

    /// <summary>Whether the micro-batches of a rank are no other's too: of the ranks that share a micro-batch, the
    /// first counts for all.</summary>
    public bool Counts(int rank) => rank % (tensor.Size * context.Size) == 0;

    public void Dispose()
    {
        foreach (var group in new[] { tensor, context, data })
        {
            if (!ReferenceEquals(group, all))
                group.Dispose();
        }
    }
}
