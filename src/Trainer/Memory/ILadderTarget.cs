using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>A loaded run that can step down the ladder in place.</summary>
internal interface ILadderTarget
{
    /// <summary>Frees what an interrupted action left.</summary>
    void Release();

    /// <summary>Device bytes that a plan may take now, from the bytes that the run holds between steps; null when
    /// unknown.</summary>
    long? AvailableBytes(long persistent);

    /// <summary>Applies a rung.</summary>
    void Apply(Rung rung);
}
