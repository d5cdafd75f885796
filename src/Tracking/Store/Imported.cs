namespace Memopt.Tracking;

/// <summary>What an import brought.</summary>
/// <param name="Runs">Runs that were new or had news.</param>
/// <param name="Known">Runs that were all here already.</param>
/// <param name="Artifacts">Artifacts stored.</param>
public sealed record Imported(IReadOnlyList<string> Runs, int Known, int Artifacts);
