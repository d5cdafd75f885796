namespace Memopt.Trainer.Plan;

/// <summary>Inverse frequencies of the rotary types, as transformers' modeling_rope_utils defines them.</summary>
internal static class RopeTable
{
    /// <param name="spec">The model.</param>
    /// <param name="sequenceLength">Longest position + 1; matters to the dynamic type alone.</param>
    /// <returns>One frequency a pair of rotary dimensions, radians a position; and a factor on cosine and
    /// sine.</returns>
    public static (double[] InvFreq, double AttentionScaling) Frequencies(ModelSpec spec, int sequenceLength)
    {
        var rope = spec.Rope;
        var dim = rope.RotaryDim;
        var factor = rope.Factor ?? 1;
        double original = rope.OriginalMaxPositions ?? spec.MaxPositions;
        switch (rope.Type)
        {
            case "linear":
                return (Array.ConvertAll(Plain(dim, rope.Theta), f => f / factor), 1);
            case "dynamic":
                double max = spec.MaxPositions;
                var stretched = factor * Math.Max(sequenceLength, max) / max - (factor - 1);
                return (Plain(dim, rope.Theta * Math.Pow(stretched, dim / (dim - 2.0))), 1);
            case "llama3":
                return (Array.ConvertAll(Plain(dim, rope.Theta), f => Smooth(rope, factor, original, f)), 1);
            case "yarn":
                return Yarn(rope, dim, factor, original);
            default:
                return (Plain(dim, rope.Theta), 1);
        }
    }

    private static double[] Plain(int dim, double theta) =>
        [.. Enumerable.Range(0, dim / 2).Select(i => 1 / Math.Pow(theta, 2.0 * i / dim))];

    private static double Smooth(RopeSpec rope, double factor, double original, double frequency)
    {
        var (low, high) = (rope.LowFreqFactor!.Value, rope.HighFreqFactor!.Value);
        var wavelength = 2 * Math.PI / frequency;
        if (wavelength > original / low)
            return frequency / factor;
        if (wavelength < original / high)
            return frequency;
        var share = (original / wavelength - low) / (high - low);
        return (1 - share) * frequency / factor + share * frequency;
    }

    private static (double[], double) Yarn(RopeSpec rope, int dim, double factor, double original)
    {
        static double Magnitude(double scale, double m = 1) => scale <= 1 ? 1 : 0.1 * m * Math.Log(scale) + 1;
        var attention =
            rope.AttentionFactor
            ?? (
                rope.Mscale is { } m && rope.MscaleAllDim is { } all && m != 0 && all != 0
                    ? Magnitude(factor, m) / Magnitude(factor, all)
                    : Magnitude(factor)
            );
        double Dimension(double rotations) =>
            dim * Math.Log(original / (rotations * 2 * Math.PI)) / (2 * Math.Log(rope.Theta));
        var (low, high) = (Dimension(rope.BetaFast ?? 32), Dimension(rope.BetaSlow ?? 1));
        if (rope.Truncate)
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        (low, high) = (Math.Max(low, 0), Math.Min(high, dim - 1));
        if (low == high)
            high += 0.001;
        var plain = Plain(dim, rope.Theta);
        var blended = new double[plain.Length];
        for (var i = 0; i < plain.Length; i++)
        {
            var ramp = Math.Clamp((i - low) / (high - low), 0, 1); // 0: keep, 1: interpolate
            blended[i] = plain[i] / factor * ramp + plain[i] * (1 - ramp);
        }
        return (blended, attention);
    }
}
