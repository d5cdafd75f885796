namespace Memopt.Trainer.Config.Sweeps;

/// <summary>The settings that a sweep tries, in the order of the file.</summary>
internal sealed record SweepParameters(IReadOnlyList<SweepParameter> List);
