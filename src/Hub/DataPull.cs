using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Finds the files of a data set in the cache, or fetches them: rows only, never code.</summary>
internal sealed class DataPull(HubDataSet source, IRemote remote, CacheFetcher fetcher)
{
    private readonly ModelCache cache = new(remote.CacheRoot, remote.CacheFolder);
    private readonly string wanted = ModelFiles.Safe(source.Revision ?? remote.DefaultRevision);

    /// <param name="offline">Whether no server may be asked.</param>
    /// <param name="watcher">Receives the progress.</param>
    /// <param name="stop">Gives up.</param>
    public async Task<Snapshot> RunAsync(bool offline, IPullWatcher watcher, CancellationToken stop)
    {
        if ((offline || cache.Has(wanted)) && FindHere() is { } here)
            return here;
        if (offline)
            throw new UserFault(
                $"{source} is not whole in the cache, and --offline asks no server.",
                found: cache.Folder,
                next: $"dotnet memopt pull {source}   (without --offline)"
            )
            {
                Failed = true,
            };
        var listed = await remote.ListAsync(wanted, stop).ConfigureAwait(false);
        var target = new FetchTarget(cache, listed.Commit, watcher);
        var card = source.Path is null ? listed.Files.GetValueOrDefault(ModelFiles.Card) : null;
        var read = await fetcher.FetchAsync(target, card is null ? [] : [card], stop).ConfigureAwait(false);
        var names = Choose(listed, card);
        var rows = await fetcher
            .FetchAsync(target, [.. names.Select(name => listed.Files[name])], stop)
            .ConfigureAwait(false);
        cache.Choose(listed.Commit, source.ToString(), names);
        cache.Remember(wanted, listed.Commit);
        return Only(listed.Commit, names) with
        {
            FetchedBytes = read.Fetched + rows.Fetched,
            ResumedBytes = rows.Resumed,
        };
    }

    /// <summary>The files that a previous pull found for the source; null when not all of it is in the cache.</summary>
    private Snapshot? FindHere() =>
        cache.Commit(wanted) is { } known
        && cache.Chosen(known, source.ToString()) is { } all
        && all.All(name => ModelFiles.IsHere(Path.Combine(cache.Snapshot(known), name)))
            ? Only(known, all)
            : null;

    /// <summary>The files that the source means, by the card when there is one.</summary>
    private IReadOnlyList<string> Choose(RemoteModel listed, RemoteFile? card)
    {
        var names = source.Choose(
            listed.Files.Keys,
            card is null
                ? null
                : UntrustedFile.ReadAllText(
                    Path.Combine(cache.Snapshot(listed.Commit), card.Path),
                    UntrustedFile.Settings
                )
        );
        return names.Count > 0
            ? names
            : throw new UserFault(
                $"{source} has no files of rows{(source.Path is null ? "" : " there")}.",
                found: $"{listed.Files.Count} files: "
                    + $"{string.Join(", ", listed.Files.Keys.Order(StringComparer.Ordinal).Take(8))}",
                next: $"name some, hf:{source.Id}/data/*.parquet, or take the hub's own conversion, "
                    + $"hf:{source.Id}@refs/convert/parquet"
            );
    }

    private Snapshot Only(string commit, IReadOnlyList<string> files)
    {
        var here = Snapshot.Of(source.ToString(), cache, commit);
        var chosen = files.ToHashSet();
        return here with { Files = [.. here.Files.Where(file => chosen.Contains(file.Path))] };
    }
}
