namespace Memopt.Trainer.Models;

/// <summary>The part that the gradients of trained weights have in the collectives of a pass: where ranks divide them,
/// the ranks add up those of a unit, a layer or the root, at the end of its backward.</summary>
internal interface IGradientReduction
{
    /// <summary>Collectives that this rank has taken part in.</summary>
    long Calls { get; }

    /// <summary>A layer whose gradient can be accumulated in its backward.</summary>
    LayerForward Around(LayerForward run);

    /// <summary>Whether the ranks add up a unit within a pass.</summary>
    /// <param name="layer">The layer; null is the root.</param>
    bool ReducesInPass(int? layer);

    /// <summary>Takes part in the sum of a unit of which this rank has nothing.</summary>
    /// <param name="layer">The layer; null is the root.</param>
    void ReduceNothing(int? layer);

    /// <summary>Frees what a backward that was given up has begun.</summary>
    void Abandon();
}
