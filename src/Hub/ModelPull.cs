using Memopt.Core;

namespace Memopt.Hub;

/// <summary>How much of a model is needed. The names are part of marks in the cache.</summary>
internal enum ModelParts
{
    Config,
    Text,
    All,
}

/// <summary>Which model is wanted, and how much of it.</summary>
/// <param name="Source">One that has to be downloaded.</param>
/// <param name="Revision">Branch, tag or commit; null for the server's default.</param>
/// <param name="Parts">How much.</param>
internal sealed record ModelRequest(ModelSource Source, string? Revision, ModelParts Parts);

/// <summary>Finds a model in the cache, or fetches it.</summary>
internal sealed class ModelPull(ModelRequest request, IRemote remote, CacheFetcher fetcher)
{
    private readonly ModelSource source = request.Source;
    private readonly ModelParts parts = request.Parts;
    private readonly ModelCache cache = new(remote.CacheRoot, remote.CacheFolder);
    private readonly string wanted = ModelFiles.Safe(request.Revision ?? remote.DefaultRevision);

    /// <param name="offline">Whether no server may be asked.</param>
    /// <param name="watcher">Receives the progress.</param>
    /// <param name="stop">Gives up.</param>
    public async Task<Snapshot> RunAsync(bool offline, IPullWatcher watcher, CancellationToken stop)
    {
        if ((offline || cache.Has(wanted)) && FindHere(offline) is { } commit)
            return Snapshot.Of(source.ToString(), cache, commit);
        var model = await remote.ListAsync(wanted, stop).ConfigureAwait(false);
        var target = new FetchTarget(cache, model.Commit, watcher);
        var files = SmallFiles(model);
        var bytes = await fetcher.FetchAsync(target, files, stop).ConfigureAwait(false);
        if (parts == ModelParts.All)
        {
            foreach (var next in new[] { Index, Weights })
            {
                var more = next(model);
                bytes += await fetcher.FetchAsync(target, more, stop).ConfigureAwait(false);
                files.AddRange(more);
            }
        }
        if (parts != ModelParts.Config)
            Mark(model.Commit, [.. files.Select(file => file.Path)]);
        cache.Remember(wanted, model.Commit);
        return Snapshot.Of(source.ToString(), cache, model.Commit) with
        {
            FetchedBytes = bytes.Fetched,
            ResumedBytes = bytes.Resumed,
        };
    }

    /// <summary>The commit, when all that is wanted of it is in the cache; else null, or offline a fault.</summary>
    private string? FindHere(bool offline)
    {
        // A commit never changes, so a whole snapshot of it needs no server.
        var commit = cache.Commit(wanted);
        var missing = commit is null
            ? ["everything"]
            : ModelFiles
                .Missing(cache.Snapshot(commit))
                .Where(name => parts == ModelParts.All || name == ModelLayout.Config);
        if (
            !missing.Any()
            && (offline || parts == ModelParts.Config || IsWhole(commit!, parts) || IsWhole(commit!, ModelParts.All))
        )
            return commit;
        if (!offline)
            return null;
        var revision = request.Revision is null ? "" : $" --revision {request.Revision}";
        throw new UserFault(
            $"{source} is not whole in the cache, and --offline asks no server.",
            found: $"missing in {cache.Folder}: {string.Join(", ", missing.Take(5))}",
            next: $"dotnet memopt pull {source}{revision}   (without --offline)"
        )
        {
            Failed = true,
        };
    }

    /// <summary>Whether a pull of this version has brought all of a commit. A snapshot that another version or another
    /// program made may lack files that are read here, such as a chat template: its server is asked.
    /// </summary>
    private bool IsWhole(string commit, ModelParts parts) =>
        cache.Chosen(commit, MarkOf(parts)) is { } names
        && names.All(name => ModelFiles.IsHere(ModelLayout.In(cache.Snapshot(commit), name)));

    private void Mark(string commit, IReadOnlyList<string> names)
    {
        try
        {
            if (!IsWhole(commit, parts))
                cache.Choose(commit, MarkOf(parts), names);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            // A cache that is only read: the mark saves a request, no more.
        }
    }

    private static string MarkOf(ModelParts parts) => $"{parts} of {string.Join(' ', ModelLayout.Small)}";

    /// <summary>All that is wanted but weights.</summary>
    private List<RemoteFile> SmallFiles(RemoteModel model)
    {
        var small = model
            .Files.Values.Where(file =>
                parts == ModelParts.Config
                    ? file.Path is ModelLayout.Config or ModelLayout.Generation
                    : ModelLayout.IsSmall(file.Path)
            )
            .ToList();
        return small.Exists(file => file.Path == ModelLayout.Config)
            ? small
            : throw new UserFault(
                $"{source} is not a model that can be trained.",
                found: $"no config.json among {model.Files.Count} files",
                next: "name a model of transformers' layout"
            );
    }

    /// <summary>The index of the weights, where it is needed to know their files.</summary>
    private static IReadOnlyList<RemoteFile> Index(RemoteModel model) =>
        !model.Files.ContainsKey(ModelLayout.Weights) && model.Files.TryGetValue(ModelLayout.Index, out var index)
            ? [index]
            : [];

    /// <summary>The files of the weights; their index must be here.</summary>
    private IReadOnlyList<RemoteFile> Weights(RemoteModel model)
    {
        var names = ModelLayout.WeightFiles(
            model.Files.ContainsKey,
            () =>
                ModelFiles.Shards(
                    UntrustedFile.ReadAllBytes(
                        Path.Combine(cache.Snapshot(model.Commit), ModelLayout.Index),
                        UntrustedFile.Index
                    )
                )
        );
        var absent = names.Where(name => !model.Files.ContainsKey(name)).ToList();
        if (absent.Count == 0)
            return [.. names.Select(name => model.Files[name])];
        var pickle = model.Files.Keys.FirstOrDefault(path =>
            path.EndsWith(".bin", StringComparison.Ordinal)
            || path.EndsWith(".pt", StringComparison.Ordinal)
            || path.EndsWith(".pth", StringComparison.Ordinal)
        );
        throw new UserFault(
            $"{source} lacks safetensors.",
            found: $"no {absent[0]}"
                + $"{(pickle is null ? "" : $"; {pickle} is a pickle, which can hold any program and is never read")}",
            next: "use a revision or a copy of the model that has safetensors"
        );
    }
}
