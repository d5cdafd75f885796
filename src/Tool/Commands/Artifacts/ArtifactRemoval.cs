using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary>An artifact that is to be removed.</summary>
/// <param name="Hash">Of its content.</param>
/// <param name="Bytes">Of its files.</param>
/// <param name="Freed">Bytes of those files that no artifact that stays has.</param>
/// <param name="NamedBy">The runs and the registered versions that name it.</param>
internal sealed record LeavingArtifact(string Hash, long Bytes, long Freed, IReadOnlyList<string> NamedBy);

/// <summary>The removal of artifacts: which leave, what names them, and what of their content stays.</summary>
internal sealed class ArtifactRemoval
{
    private readonly ArtifactPlaces places;
    private readonly LiteRunStore? store;
    private readonly IReadOnlyList<Run> runs;

    /// <summary>Registered versions by hash.</summary>
    private readonly ILookup<string, string> versions;

    /// <summary>Checkpoints of finished runs, which a run's name does not hold.</summary>
    private readonly HashSet<string> spare;
    private readonly Dictionary<string, IReadOnlyList<ArtifactFile>> contents;

    /// <summary>Hashes of the files of the artifacts that stay.</summary>
    private readonly HashSet<string> kept;

    /// <summary>Finds what is to leave.</summary>
    /// <param name="places">Where.</param>
    /// <param name="store">The runs that may name it, or null.</param>
    /// <param name="named">Hashes, starts of hashes or registered adapters.</param>
    /// <param name="withCheckpoints">Whether the checkpoints of finished runs leave, too.</param>
    /// <exception cref="UserFault">Nothing is asked for, or there is no such artifact.</exception>
    public ArtifactRemoval(ArtifactPlaces places, LiteRunStore? store, string[] named, bool withCheckpoints)
    {
        (this.places, this.store) = (places, store);
        runs = store?.Find(new RunQuery { Limit = int.MaxValue - 1 }).Runs ?? [];
        var all = places.All.List();
        versions = Versions(places);
        var found = named.Select(places.Find).Distinct().ToList();
        spare = withCheckpoints ? Checkpoints(all) : [];
        if (found.Count == 0 && !withCheckpoints)
            throw new UserFault(
                "No artifact is named.",
                next: "name some: dotnet memopt artifacts rm HASH…, or use --checkpoints"
            );
        var leaving = found.Union(spare).ToList();
        contents = all.ToDictionary(hash => hash, places.All.Files);
        kept = contents
            .Where(one => !leaving.Contains(one.Key))
            .SelectMany(one => one.Value)
            .Select(file => file.Hash)
            .ToHashSet();
        Leaving = leaving
            .Select(hash => new LeavingArtifact(
                hash,
                contents[hash].Sum(file => file.Bytes),
                FreedOf(contents[hash]),
                [.. RunsThatName(hash), .. versions[hash]]
            ))
            .ToList();
    }

    public IReadOnlyList<LeavingArtifact> Leaving { get; }

    /// <summary>Bytes of all that leaves; content that several artifacts have counts once.</summary>
    public long Freed => FreedOf(Leaving.SelectMany(one => contents[one.Hash]));

    /// <summary>Refuses what a run or the registry names, and everything while a run trains.</summary>
    /// <exception cref="UserFault">Something is needed.</exception>
    public void RefuseNeeded()
    {
        var bound = Leaving.FirstOrDefault(one =>
            one.NamedBy.Count > 0 && (!spare.Contains(one.Hash) || versions[one.Hash].Any())
        );
        if (bound is not null)
            throw new UserFault(
                $"Artifact {bound.Hash[..12]} is named by {string.Join(", ", bound.NamedBy)}.",
                next: "add --force to remove it all the same; dotnet memopt runs gc removes runs"
            )
            {
                Failed = true,
            };
        if (Leaving.Count > 0 && runs.FirstOrDefault(run => run.Status == RunStatus.Running) is { } busy)
            throw new UserFault(
                $"Run {busy.Start.Id} is training and may be storing what has the same content.",
                next: "wait for it, or add --force"
            )
            {
                Failed = true,
            };
    }

    /// <summary>Removes them, and tells the runs that named them.</summary>
    public void Apply()
    {
        foreach (var one in Leaving)
        {
            places.All.Delete(one.Hash);
            foreach (var run in runs.Where(run => run.Status != RunStatus.Running && Names(run, one.Hash)))
            {
                using var record = store!.Amend(run.Start.Id);
                foreach (var link in run.Artifacts.Where(link => link.Hash == one.Hash))
                    record.Link(link with { Place = null });
            }
        }
    }

    private static ILookup<string, string> Versions(ArtifactPlaces places)
    {
        ArtifactStores.TrySync(places.Registry, null, text => Shell.Progress.WriteLine(text));
        return places
            .Registry.List()
            .SelectMany(adapter =>
                adapter.Versions.Select(version => (version.Hash, Name: $"{adapter.Name}@{version.Number}"))
            )
            .ToLookup(one => one.Hash, one => one.Name);
    }

    private HashSet<string> Checkpoints(IReadOnlyList<string> all) =>
        runs.Where(run => run.Status == RunStatus.Finished)
            .SelectMany(run => run.Artifacts)
            .Where(link => link.Name.StartsWith("checkpoint-", StringComparison.Ordinal) && all.Contains(link.Hash))
            .Select(link => link.Hash)
            .ToHashSet();

    private IEnumerable<string> RunsThatName(string hash) =>
        runs.SelectMany(run =>
            run.Artifacts.Where(link => link.Hash == hash).Select(link => $"run {run.Start.Id} ({link.Name})")
        );

    private static bool Names(Run run, string hash) => run.Artifacts.Any(link => link.Hash == hash);

    private long FreedOf(IEnumerable<ArtifactFile> files) =>
        files.DistinctBy(file => file.Hash).Where(file => !kept.Contains(file.Hash)).Sum(file => file.Bytes);
}
