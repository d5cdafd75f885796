namespace Memopt.Trainer.Config.Sweeps;

/// <summary>One setting of a sweep: values as JSON, or a range to draw from.</summary>
/// <param name="Setting">Its name in the config.</param>
/// <param name="Values">Values to try; empty when there is a range.</param>
/// <param name="Range">Where to draw from, or null.</param>
internal sealed record SweepParameter(string Setting, IReadOnlyList<string> Values, SweepRange? Range = null)
{
    /// <summary>The value that a chance from 0 to below 1 draws.</summary>
    public string Draw(double chance) => Range?.Draw(chance) ?? Values[(int)(chance * Values.Count)];
}
