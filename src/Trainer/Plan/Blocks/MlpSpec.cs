namespace Memopt.Trainer.Plan.Blocks;

/// <summary>The gated feed-forward of one layer: its shape, and what it takes in training. <c>Models/Mlp</c> is the
/// part itself.</summary>
/// <param name="HiddenSize">Numbers of a token between layers, C.</param>
/// <param name="IntermediateSize">Numbers of a token between gate and down, M.</param>
/// <param name="Activation">Name of the activation, as transformers has it.</param>
internal sealed record MlpSpec(int HiddenSize, int IntermediateSize, string Activation)
{
    public bool Bias { get; init; }

    /// <summary>One projection for gate and up (Phi-3).</summary>
    public bool FusedGateUp { get; init; }

    /// <summary>Its linears, in the order they are run; the down projection is the last.</summary>
    /// <param name="prefix">Module name before theirs.</param>
    public IEnumerable<LinearSpec> Linears(string prefix)
    {
        if (FusedGateUp)
        {
            yield return new(prefix + "gate_up_proj", HiddenSize, 2L * IntermediateSize, Bias);
        }
        else
        {
            yield return new(prefix + "gate_proj", HiddenSize, IntermediateSize, Bias);
            yield return new(prefix + "up_proj", HiddenSize, IntermediateSize, Bias);
        }
        yield return new(prefix + "down_proj", IntermediateSize, HiddenSize, Bias);
    }

    /// <summary>Bytes saved for backward: gate and up, and the sum before them.</summary>
    public long SavedBytes(long tokens, PlanDevice device) =>
        (2 * GatedBytes(tokens, device)) + tokens * HiddenSize * device.ComputeBytes;

    /// <summary>Bytes of the product of gate and up, and of its gradient.</summary>
    public long GatedBytes(long tokens, PlanDevice device) => tokens * IntermediateSize * device.ComputeBytes;
}
