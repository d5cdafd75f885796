using Memopt.Core;

namespace Memopt.Hub;

/// <summary>A model in a cache.</summary>
/// <param name="Name">As a source when it is known, else its folder.</param>
/// <param name="Folder">Where it is.</param>
/// <param name="Bytes">Space that its blobs take, unfinished ones too.</param>
/// <param name="Revisions">Commits that are here, with the branches that point to them.</param>
/// <param name="Unfinished">Blobs whose download was cut off; the next pull goes on with them.</param>
public sealed record CachedModel(
    string Name,
    string Folder,
    long Bytes,
    IReadOnlyList<CachedRevision> Revisions,
    int Unfinished
);

/// <summary>A commit of a model in a cache.</summary>
public sealed record CachedRevision(string Commit, IReadOnlyList<string> Refs, int Files, long Bytes);

/// <summary>A blob that is not what its name says.</summary>
public sealed record DamagedBlob(string Model, string Blob, string Expected, string Found);

/// <summary>Looks through the caches, checks and removes.</summary>
public sealed class CachedModels
{
    private readonly HubSettings settings;

    internal CachedModels(HubSettings settings) => this.settings = settings;

    public IReadOnlyList<CachedModel> List() => [.. Caches().Select(Describe)];

    /// <summary>Hashes every blob. A damaged one is removed, so that the next pull fetches it again.</summary>
    public async Task<(int Checked, IReadOnlyList<DamagedBlob> Damaged)> VerifyAsync(
        string? name,
        IPullWatcher watcher,
        CancellationToken stop
    )
    {
        var (count, damaged) = (0, new List<DamagedBlob>());
        foreach (var cache in Named(name))
        {
            foreach (var blob in Blobs(cache))
            {
                if (cache.Expected(blob.Name) is not { } expected)
                    continue;
                var found = await Digest.ComputeAsync(expected.Algorithm, blob.FullName, stop).ConfigureAwait(false);
                watcher.Advance(blob.Name[..Math.Min(12, blob.Name.Length)], blob.Length, blob.Length, 0);
                count++;
                if (found == expected)
                    continue;
                blob.Delete();
                damaged.Add(new(Title(cache), blob.Name, expected.ToString(), found.ToString()));
            }
        }
        return (count, damaged);
    }

    /// <summary>Removes a model, or one commit of it with the blobs that no other commit uses. Gives the bytes
    /// freed.</summary>
    public long Remove(string name, string? revision)
    {
        long freed = 0;
        foreach (var cache in Named(name))
        {
            var before = Describe(cache).Bytes;
            var locks = Blobs(cache, all: true).Select(blob => cache.TryLock(blob.Name.Replace(".part", ""))).ToList();
            try
            {
                if (locks.Contains(null))
                    throw new UserFault(
                        $"{Title(cache)} is being fetched by another process.",
                        next: "wait for it, then run the same command again"
                    );
                if (revision is null)
                    Directory.Delete(cache.Folder, recursive: true);
                else
                    RemoveRevision(cache, revision);
            }
            finally
            {
                locks.ForEach(held => held?.Dispose());
            }
            freed += before - (Directory.Exists(cache.Folder) ? Describe(cache).Bytes : 0);
        }
        return freed;
    }

    private static void RemoveRevision(ModelCache cache, string revision)
    {
        var commit =
            cache.Commit(revision) is { } known && Directory.Exists(cache.Snapshot(known))
                ? known
                : throw new UserFault(
                    $"{Title(cache)} has no revision \"{revision}\" in the cache.",
                    next: "dotnet memopt cache ls"
                );
        Directory.Delete(cache.Snapshot(commit), recursive: true);
        foreach (var (file, _) in Refs(cache).Where(pair => pair.Commit == commit).ToList())
            File.Delete(Path.Combine(cache.Folder, "refs", file));
        var used = Commits(cache).SelectMany(cache.Files).Select(file => file.Blob).ToHashSet();
        foreach (var blob in Blobs(cache).Where(blob => !used.Contains(blob.Name)))
        {
            File.Delete(blob.FullName + ".sha256");
            blob.Delete();
        }
    }

    private List<ModelCache> Named(string? name)
    {
        var found = Caches().Where(cache => name is null || name == cache.Name || name == Title(cache)).ToList();
        return found.Count > 0 || name is null
            ? found
            : throw new UserFault($"{name} is not in the cache.", next: "dotnet memopt cache ls");
    }

    private IEnumerable<ModelCache> Caches()
    {
        foreach (
            var (root, form) in new[]
            {
                (settings.HubCache, "models--*"),
                (settings.HubCache, "datasets--*"),
                (settings.OwnCache, "*--*"),
            }
        )
        {
            if (!Directory.Exists(root))
                continue;
            foreach (
                var folder in Directory
                    .EnumerateDirectories(root, form)
                    .Where(folder => Directory.Exists(Path.Combine(folder, "blobs")))
                    .Order(StringComparer.Ordinal)
            )
                yield return new(root, Path.GetFileName(folder));
        }
    }

    private static CachedModel Describe(ModelCache cache)
    {
        var refs = Refs(cache).ToLookup(pair => pair.Commit, pair => pair.Ref);
        var revisions = Commits(cache)
            .Select(commit =>
            {
                var files = cache.Files(commit).ToList();
                return new CachedRevision(commit, [.. refs[commit]], files.Count, files.Sum(file => file.Size));
            })
            .ToList();
        var blobs = Blobs(cache, all: true).ToList();
        return new(
            Title(cache),
            cache.Folder,
            blobs.Sum(blob => blob.Length),
            revisions,
            blobs.Count(blob => blob.Name.EndsWith(".part", StringComparison.Ordinal))
        );
    }

    private static string Title(ModelCache cache) =>
        cache.Name.Split("--", 2) switch
        {
            ["models", var id] => id.Replace("--", "/"),
            ["datasets", var id] => HubDataSet.Prefix + id.Replace("--", "/"),
            ["modelscope", var id] => "modelscope:" + id.Replace("--", "/"),
            _ => cache.Name,
        };

    private static IEnumerable<string> Commits(ModelCache cache)
    {
        var folder = Path.Combine(cache.Folder, "snapshots");
        return Directory.Exists(folder)
            ? Directory
                .EnumerateDirectories(folder)
                .Select(path => Path.GetFileName(path))
                .Order(StringComparer.Ordinal)
            : [];
    }

    private static IEnumerable<(string Ref, string Commit)> Refs(ModelCache cache)
    {
        var folder = Path.Combine(cache.Folder, "refs");
        return Directory.Exists(folder)
            ? Directory
                .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                .Select(file =>
                    (Path.GetRelativePath(folder, file), UntrustedFile.ReadAllText(file, UntrustedFile.Text).Trim())
                )
            : [];
    }

    private static IEnumerable<FileInfo> Blobs(ModelCache cache, bool all = false) =>
        new DirectoryInfo(Path.Combine(cache.Folder, "blobs"))
            .EnumerateFiles()
            .Where(file => all ? !file.Name.EndsWith(".sha256", StringComparison.Ordinal) : !file.Name.Contains('.'));
}
