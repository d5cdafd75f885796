namespace Memopt.Trainer.Plan;

/// <summary>Rotary positions as config.json gives them; names as in transformers' rope_parameters.</summary>
internal sealed record RopeSpec
{
    public string Type { get; init; } = "default";

    /// <summary>Numbers of a head.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Numbers of a head that are rotated.</summary>
    public int RotaryDim => (int)(HeadDim * PartialRotaryFactor);
    public double Theta { get; init; } = 10000;
    public double? Factor { get; init; }
    public double? LowFreqFactor { get; init; }
    public double? HighFreqFactor { get; init; }
    public int? OriginalMaxPositions { get; init; }
    public double? AttentionFactor { get; init; }
    public double? BetaFast { get; init; }
    public double? BetaSlow { get; init; }
    public double? Mscale { get; init; }
    public double? MscaleAllDim { get; init; }
    public bool Truncate { get; init; } = true;
    public double PartialRotaryFactor { get; init; } = 1;
}
