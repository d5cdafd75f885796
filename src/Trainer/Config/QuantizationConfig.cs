using System.ComponentModel;

namespace Memopt.Trainer.Config;

public enum QuantType
{
    Nf4,
    Fp4,
}

public sealed record QuantizationConfig
{
    [Description("4-bit code: nf4 (QLoRA, arXiv 2305.14314) or fp4."), Pinned]
    public QuantType Type { get; init; } = QuantType.Nf4;

    [Description("Quantize the block scales too: 4.127 bits a weight instead of 4.5."), Pinned]
    public bool DoubleQuant { get; init; } = true;

    [Description("Type that 4-bit weights are dequantized to for a product; auto follows model.dtype."), Pinned]
    public DType ComputeType { get; init; } = DType.Auto;
}
