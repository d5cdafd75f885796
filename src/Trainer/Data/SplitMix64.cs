namespace Memopt.Trainer.Data;

/// <summary>Numbers that follow from numbers, spread evenly (SplitMix64, Steele et al. 2014): fixed here so that
/// nothing depends on a runtime's version.</summary>
internal static class SplitMix64
{
    public static ulong Of(ulong value)
    {
        unchecked
        {
            var z = value + 0x9E3779B97F4A7C15UL;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9UL;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBUL;
            return z ^ (z >> 31);
        }
    }

    /// <summary>A number as a share from 0 to below 1.</summary>
    public static double UnitInterval(ulong number) => (number >> 11) * (1.0 / (1UL << 53));
}
