using System.Globalization;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>A range of numbers.</summary>
/// <param name="Min">The least.</param>
/// <param name="Max">The greatest.</param>
/// <param name="Log">Whether each factor, and not each difference, is as likely.</param>
/// <param name="Whole">Whether the setting takes whole numbers only.</param>
internal sealed record SweepRange(double Min, double Max, bool Log, bool Whole)
{
    /// <summary>The number at a place from 0 to 1, in four digits.</summary>
    public string At(double place) => On(Min, Max, place);

    /// <summary>The number that a chance from 0 to below 1 draws. Each whole number is as likely: half a number more at
    /// either end.</summary>
    public string Draw(double chance) => Whole ? On(Min - 0.5, Max + 0.5, chance) : On(Min, Max, chance);

    private string On(double low, double high, double place)
    {
        var number = Log
            ? Math.Exp(Math.Log(low) + place * (Math.Log(high) - Math.Log(low)))
            : low + place * (high - low);
        number = Whole
            ? Math.Round(number)
            : double.Parse(number.ToString("G4", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
        return Math.Clamp(number, Min, Max).ToString(CultureInfo.InvariantCulture);
    }
}
