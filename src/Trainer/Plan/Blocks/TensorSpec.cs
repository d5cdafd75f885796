namespace Memopt.Trainer.Plan.Blocks;

/// <summary>A tensor of the weights file.</summary>
internal sealed record TensorSpec(string Name, long[] Shape);
