namespace Memopt.Trainer.Plan.Blocks;

/// <summary>A tensor of the weights file.</summary>
internal sealed record TensorSpec(string Name, long[] Shape)
{
    /// <summary>Numbers in it.</summary>
    public long Elements => Shape.Aggregate(1L, (a, b) => a * b);
}
