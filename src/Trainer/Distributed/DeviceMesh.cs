using Memopt.Core;

namespace Memopt.Trainer.Distributed;

/// <summary>The ranks of a run laid out along axes, as torch.distributed's DeviceMesh. Neighbours along the first axis
/// have neighbouring numbers, so that the axis that communicates most stays within a host: tensor, context, data,
/// pipeline (the order of Megatron-LM). Rank ((stage · data + d) · context + c) · tensor + t.</summary>
/// <param name="all">Every rank.</param>
/// <param name="tensor">Ranks that share each layer's matrices (tensor parallel).</param>
/// <param name="context">Ranks that share the tokens of each row (context parallel).</param>
/// <param name="data">Ranks that have the same weights, and compute different micro-batches or different tokens: they
/// add up their gradients, and shard (ZeRO).</param>
/// <param name="pipeline">Ranks that compute the layers of the same micro-batches one after another.</param>
internal sealed class DeviceMesh(
    IProcessGroup all,
    IProcessGroup tensor,
    IProcessGroup context,
    IProcessGroup data,
    Pipeline pipeline
) : IDisposable
{
    public IProcessGroup Tensor => tensor;

    public IProcessGroup Context => context;

    public IProcessGroup Data => data;

    public Pipeline Pipeline => pipeline;

    /// <summary>Ranks, or groups of ranks, that compute different micro-batches.</summary>
    public int Batches => data.Size / context.Size;

    /// <summary>Which of them this rank belongs to.</summary>
    public int Batch => data.Rank / context.Size;

    /// <summary>Every rank data parallel.</summary>
    public static DeviceMesh DataParallel(IProcessGroup all) =>
        new(all, new SingleProcessGroup(), new SingleProcessGroup(), all, Pipeline.Single);

    /// <summary>Lays ranks out. All ranks call it.</summary>
    /// <param name="all">Every rank.</param>
    /// <param name="tensor">Ranks that share matrices.</param>
    /// <param name="context">Ranks that share rows.</param>
    /// <param name="pipeline">Ranks that divide the layers.</param>
    /// <exception cref="UserFault">The number of ranks is no multiple of all together.</exception>
    public static DeviceMesh Of(IProcessGroup all, int tensor, int context, int pipeline)
    {
        var one = tensor * context * pipeline;
        if (all.Size % one != 0)
            throw new UserFault(
                "The number of ranks does not fit the settings.",
                found: $"{all.Size} ranks, distributed.tensor = {tensor}, distributed.context = {context}, "
                    + $"distributed.pipeline = {pipeline}",
                next: $"start a multiple of {one} ranks: dotnet memopt run --gpus {one}, or "
                    + $"mpirun -n {one} dotnet memopt run"
            );
        var (rank, batch) = (all.Rank, tensor * context);
        var stage = rank / (all.Size / pipeline);
        IProcessGroup Split(bool needed, int color) => needed ? all.Split(color, rank) : new SingleProcessGroup();
        return new(
            all,
            Split(tensor > 1, rank / tensor),
            Split(context > 1, rank / batch * tensor + rank % tensor),
            tensor * pipeline > 1 ? all.Split(stage * tensor + rank % tensor, rank) : all,
            pipeline > 1 ? Pipeline.Of(all, pipeline) : Pipeline.Single
        );
    }

    /// <summary>Whether the micro-batches of a rank are no other's too: of the ranks that share a micro-batch, the
    /// first counts for all.</summary>
    public bool Counts(int rank) => rank % (tensor.Size * context.Size) == 0 && rank < all.Size / pipeline.Stages;

    public void Dispose()
    {
        foreach (var group in new[] { tensor, context, data })
        {
            if (!ReferenceEquals(group, all))
                group.Dispose();
        }
        pipeline.Dispose();
    }
}
