namespace Memopt.Hub;

/// <summary>Where files go.</summary>
/// <param name="Cache">Of their model or data set.</param>
/// <param name="Commit">The commit that they are of.</param>
/// <param name="Watcher">Receives the progress.</param>
internal sealed record FetchTarget(ModelCache Cache, string Commit, IPullWatcher Watcher);
