using Memopt.Trainer.Data;

namespace Memopt.Trainer.Models;

/// <summary>The collectives within a pass over the layers, where ranks share weights or rows. Every rank takes part
/// in those of every pass, also of one that it gives up or does not compute.</summary>
internal interface IPassCollectives
{
    /// <summary>Whether a pass needs all ranks.</summary>
    bool NeedAllRanks { get; }

    /// <summary>Begins a pass.</summary>
    /// <param name="batch">What is computed; null where this rank has no micro-batch of the pass.</param>
    /// <param name="backward">Whether a backward follows the forward.</param>
    void Begin(MicroBatch? batch, bool backward);

    /// <summary>Takes part in what is left of the pass, without computing.</summary>
    void Finish();
}

/// <summary>Passes that a rank does not compute.</summary>
internal static class PassCollectives
{
    /// <summary>Takes part in a whole pass, without computing.</summary>
    public static void Skip(this IPassCollectives collectives, MicroBatch? batch, bool backward)
    {
        collectives.Begin(batch, backward);
        collectives.Finish();
    }
}

/// <summary>Passes without collectives.</summary>
internal sealed class NoCollectives : IPassCollectives
{
    public static NoCollectives Instance { get; } = new();

    public bool NeedAllRanks => false;

    public void Begin(MicroBatch? batch, bool backward) { }

    public void Finish() { }
}
