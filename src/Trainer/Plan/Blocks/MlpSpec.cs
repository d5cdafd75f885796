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
        var channels = new SplitPart(IntermediateSize, 1);
        if (FusedGateUp)
        {
            yield return Projection("gate_up_proj", 2L * IntermediateSize, channels, channels);
        }
        else
        {
            yield return Projection("gate_proj", IntermediateSize, channels);
            yield return Projection("up_proj", IntermediateSize, channels);
        }
        yield return new(prefix + "down_proj", IntermediateSize, HiddenSize, Bias) { Split = new(1, channels) };

        LinearSpec Projection(string name, long width, params SplitPart[] parts) =>
            new(prefix + name, HiddenSize, width, Bias) { Split = new(0, parts) };
    }

    /// <summary>The channels that one of several tensor parallel ranks has.</summary>
    public MlpSpec Shard(int ranks) => this with { IntermediateSize = IntermediateSize / ranks };

    /// <summary>Bytes saved for backward: gate and up, and the sum before them.</summary>
    public long SavedBytes(long tokens, PlanDevice device) =>
        (2 * GatedBytes(tokens, device)) + tokens * HiddenSize * device.ComputeBytes;

    /// <summary>Bytes of the product of gate and up, and of its gradient.</summary>
    public long GatedBytes(long tokens, PlanDevice device) => tokens * IntermediateSize * device.ComputeBytes;
}
