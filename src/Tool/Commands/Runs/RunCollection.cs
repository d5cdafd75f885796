using Memopt.Tool.Cli;
using Memopt.Tracking;

namespace Memopt.Tool.Commands;

/// <summary>What a collection removes: runs, what they alone left, and artifacts that nothing names.</summary>
/// <param name="store">The runs.</param>
/// <param name="folder">The store's folder as it was named, or null.</param>
internal sealed class RunCollection(LiteRunStore store, string? folder)
{
    private readonly LocalArtifacts artifacts = CurrentProject.Artifacts(folder);

    private AdapterRegistry Registry => new(artifacts.Folder);

    public IReadOnlyList<Run> Runs { get; private set; } = [];

    /// <summary>Folders of the runs' checkpoints.</summary>
    public IReadOnlyList<string> Checkpoints { get; private set; } = [];

    /// <summary>Versions of registered adapters.</summary>
    public IReadOnlyList<(string Name, int Number)> Versions { get; private set; } = [];

    /// <summary>Hashes of artifacts; none while it <see cref="Waits"/>.</summary>
    public IReadOnlyList<string> Artifacts { get; private set; } = [];

    /// <summary>Whether artifacts stay for now: a run that trains may have stored what it has not linked to
    /// yet.</summary>
    public bool Waits { get; private set; }

    /// <summary>Chooses what is to leave; without a filter and a time no run does.</summary>
    /// <param name="filter">Runs that match, or null.</param>
    /// <param name="before">Runs that began before this, or null.</param>
    public void Choose(string? filter, DateTimeOffset? before)
    {
        var all = store.Find(new RunQuery { Limit = int.MaxValue - 1, Deleted = null }).Runs;
        if (filter is not null || before is not null)
            Runs = Matching(filter, before);
        var gone = Runs.Select(run => run.Start.Id).ToHashSet();
        Checkpoints = RunCheckpoints.Of(folder, gone).ToList();
        Waits = all.Any(run => run.Status == RunStatus.Running);
        var (leaving, staying) = Split(gone);
        Versions = leaving;
        var named = all.Where(run => !gone.Contains(run.Start.Id))
            .SelectMany(run => run.Artifacts)
            .Select(link => link.Hash)
            .Concat(staying)
            .ToHashSet();
        Artifacts = Waits ? [] : artifacts.List().Where(hash => !named.Contains(hash)).ToList();
    }

    /// <summary>Removes it. What a run left goes before the run itself: after a kill it is found again.</summary>
    public void Apply()
    {
        foreach (var checkpoint in Checkpoints)
            Directory.Delete(checkpoint, recursive: true);
        foreach (var (name, number) in Versions)
            Registry.Remove(name, number);
        foreach (var run in Runs)
            store.Remove(run.Start.Id);
        foreach (var hash in Artifacts)
            artifacts.Delete(hash);
    }

    private List<Run> Matching(string? filter, DateTimeOffset? before) =>
        store
            .Find(
                new RunQuery
                {
                    Filter = filter,
                    Limit = int.MaxValue - 1,
                    Deleted = null,
                }
            )
            .Runs.Where(run => run.Status != RunStatus.Running && (before is null || run.Start.Started < before))
            .ToList();

    /// <summary>The versions that leave and the content of those that stay. A version goes with its run, unless
    /// somebody gave it an alias.</summary>
    private (List<(string Name, int Number)> Leaving, List<string> Staying) Split(HashSet<string> gone)
    {
        var (leaving, staying) = (new List<(string, int)>(), new List<string>());
        foreach (var adapter in Registry.List())
        {
            foreach (var version in adapter.Versions)
            {
                if (version.Run is not null && gone.Contains(version.Run) && !adapter.Named(version))
                    leaving.Add((adapter.Name, version.Number));
                else
                    staying.Add(version.Hash);
            }
        }
        return (leaving, staying);
    }
}
