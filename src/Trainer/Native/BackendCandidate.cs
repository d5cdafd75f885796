namespace Memopt.Trainer.Native;

/// <summary>A place where libtorch was looked for.</summary>
/// <param name="Source">Which step of the search it came from.</param>
/// <param name="Folder">The folder, or null when the step found none.</param>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="Chosen">Whether it was taken.</param>
/// <param name="Why">Why, or why not.</param>
internal sealed record BackendCandidate(string Source, string? Folder, string? Kind, bool Chosen, string Why);
