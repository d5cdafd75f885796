namespace Memopt.Trainer.Plan.Blocks;

/// <summary>A linear: module name, inputs, outputs, whether it has a bias.</summary>
internal sealed record LinearSpec(string Name, long In, long Out, bool HasBias)
{
    /// <summary>How tensor parallel ranks divide its weight.</summary>
    public required TensorSplit Split { get; init; }

    /// <summary>Weights, the bias left out.</summary>
    public long Weights => In * Out;
}
