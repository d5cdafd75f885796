namespace Memopt.Trainer.Plan;

/// <summary>Sizes that the plan and the parts themselves agree on.</summary>
internal static class Footprints
{
    /// <summary>Trained weights that an optimizer on the host works on at once; two pieces of value and moments are on
    /// the device.</summary>
    public const long OptimizerPiece = 8 << 20;

    /// <summary>Pinned buffers that weights pass through, and those of a file that layers are streamed from.</summary>
    public const long StagingBytes = 128 << 20;

    /// <summary>Bytes of quantized weights: codes, block scales and, under double quantization, 8-bit scales with an
    /// fp32 scale for each 256.</summary>
    public static long Quantized(long weights, bool doubleQuant)
    {
        var blocks = (weights + 63) / 64;
        return (weights + 1) / 2 + (doubleQuant ? blocks + 4 * ((blocks + 255) / 256) + 4 : 4 * blocks);
    }

    /// <summary>Tokens of a row that each context parallel rank has: two of 2c equal pieces of the padded
    /// row.</summary>
    public static long ContextTokens(long length, int ranks) =>
        ranks == 1 ? length : (length + 2 * ranks - 1) / (2 * ranks) * 2;

    /// <summary>Bytes of a context parallel rank's mask for the general operator: its queries by all keys, of each row
    /// where rows are packed.</summary>
    public static long ContextMask(long length, int rows, bool packed, PlanDevice device)
    {
        if (device.ContextRanks == 1 || device.FusedAttention)
            return 0;
        var own = ContextTokens(length, device.ContextRanks);
        return own * own * device.ContextRanks * device.ComputeBytes * (packed ? rows : 1);
    }

    /// <summary>Positions whose logits are there at once, for a vocabulary and bytes of a logit: few enough to be
    /// small, enough that the head's weight is not read too often.</summary>
    public static long ChunkRows(long vocabulary, long bytes)
    {
        var rows = Math.Max(1, (256L << 20) / (bytes * vocabulary));
        return rows > 128 ? rows / 128 * 128 : rows;
    }
}
