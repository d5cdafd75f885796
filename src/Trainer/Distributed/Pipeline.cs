using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>The stages that compute a model one after another (pipeline parallel), as one of them sees them. Each
/// stage has a group with the one before it and a group with the one after it: only those two exchange, and they call
/// the same verbs.</summary>
/// <param name="stages">All stages, in their order.</param>
/// <param name="previous">The stage before and this one; null on the first.</param>
/// <param name="next">This stage and the one after; null on the last.</param>
/// <param name="ends">The first stage and the last; on the others a group of this rank.</param>
internal sealed class Pipeline(IProcessGroup stages, IProcessGroup? previous, IProcessGroup? next, IProcessGroup ends)
    : IDisposable
{
    /// <summary>One stage that computes the whole model.</summary>
    public static Pipeline Single { get; } = new(new SingleProcessGroup(), null, null, new SingleProcessGroup());

    /// <summary>All stages.</summary>
    public IProcessGroup Group => stages;

    /// <summary>The first stage and the last, which both hold the embeddings where these are tied to the
    /// head.</summary>
    public IProcessGroup Ends => ends;

    /// <summary>Number of this stage, from 0.</summary>
    public int Stage => stages.Rank;

    /// <summary>How many stages there are.</summary>
    public int Stages => stages.Size;

    public bool IsFirst => previous is null;

    public bool IsLast => next is null;

    /// <summary>Lays out the ranks of a world as pipelines. All ranks call it.</summary>
    /// <param name="all">Every rank; those of a stage have neighbouring numbers.</param>
    /// <param name="size">Stages of a pipeline, at least 2; divides the number of ranks.</param>
    public static Pipeline Of(IProcessGroup all, int size)
    {
        var (each, rank) = (all.Size / size, all.Rank);
        var (stage, place) = (rank / each, rank % each);
        // Every stage has a number of its own in each of the splits, with a neighbour or alone.
        IProcessGroup Split(int number) => all.Split(number * each + place, rank);
        var stages = Split(0);
        var even = Split(stage / 2); // stages 0 and 1, 2 and 3, …
        var odd = size > 2 ? Split((stage + 1) / 2) : null; // stages 1 and 2, 3 and 4, …
        var ends = size > 2 ? Split(stage == 0 || stage == size - 1 ? 0 : stage) : stages;
        var (previous, next) = stage % 2 == 0 ? (odd, even) : (even, odd);
        return new(stages, stage == 0 ? Unused(previous) : previous, stage == size - 1 ? Unused(next) : next, ends);

        static IProcessGroup? Unused(IProcessGroup? group)
        {
            group?.Dispose();
            return null;
        }
    }

    /// <summary>Sends hidden states to the next stage and receives their gradient from it, together: a stage that
    /// waited with one until the other was done would face a neighbour that does the same.</summary>
    /// <param name="sent">Null sends nothing.</param>
    /// <param name="received">Null receives nothing.</param>
    public void ExchangeWithNext(Tensor? sent, Tensor? received) => Exchange(next, 1, sent, received);

    /// <summary>Sends a gradient to the previous stage and receives hidden states from it, together.</summary>
    /// <param name="sent">Null sends nothing.</param>
    /// <param name="received">Null receives nothing.</param>
    public void ExchangeWithPrevious(Tensor? sent, Tensor? received) => Exchange(previous, 0, sent, received);

    public void Dispose()
    {
        foreach (var group in new[] { ends, previous, next, stages }.OfType<IProcessGroup>().Distinct())
            group.Dispose();
    }

    private static void Exchange(IProcessGroup? group, int peer, Tensor? sent, Tensor? received)
    {
        if (sent is not null || received is not null)
            group!.Exchange(List(sent), List(received));

        PeerTensor[] List(Tensor? tensor) => tensor is null ? [] : [new(tensor, peer)];
    }
}
