namespace Memopt.Trainer.Config.Sweeps;

/// <summary>A sweep that was read and has no problems.</summary>
/// <param name="Sweep">What the file says.</param>
/// <param name="File">The file.</param>
/// <param name="Base">The config that all combinations start from.</param>
/// <param name="Json">The file without comments.</param>
/// <param name="Combinations">In the order in which they are trained.</param>
internal sealed record LoadedSweep(
    Sweep Sweep,
    string File,
    ProjectConfig Base,
    string Json,
    IReadOnlyList<Combination> Combinations
)
{
    /// <summary>The name of the file without its ending.</summary>
    public string Name => Path.GetFileNameWithoutExtension(File);
}
