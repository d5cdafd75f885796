using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Models by name: finds one here, or brings it here whole and checked. Start reading at
/// <see cref="PullAsync"/>.</summary>
public sealed class ModelHub : IDisposable
{
    /// <summary>The small WordNet model that ships with the tool.</summary>
    public const string Nano = "embedded:nano";

    private enum Parts
    {
        Config,
        Text,
        All,
    }

    private const int filesAtOnce = 4;
    private const int readOnlyFileSystem = 30; // EROFS
    private const long spare = 64L << 20;
    private readonly HubSettings settings;
    private readonly TimeProvider clock;
    private readonly HubHttp http;
    private readonly Downloader downloader;

    /// <param name="settings">Addresses, tokens, folders.</param>
    /// <param name="clock">Time of all waits.</param>
    /// <param name="random">Gives numbers from 0 to 1 for the jitter.</param>
    public ModelHub(HubSettings settings, TimeProvider? clock = null, Func<double>? random = null)
    {
        (this.settings, this.clock) = (settings, clock ?? TimeProvider.System);
        http = new(settings, this.clock, random ?? Random.Shared.NextDouble);
        downloader = new(http, settings, this.clock);
    }

    /// <summary>Free bytes on the disk of a folder.</summary>
    public Func<string, long> FreeBytes { get; init; } = folder => new DriveInfo(folder).AvailableFreeSpace;

    /// <summary>Brings what a plan needs, config.json and generation_config.json: a few KB.</summary>
    public Task<Snapshot> ConfigAsync(
        ModelSource source,
        string? revision,
        IPullWatcher watcher,
        CancellationToken stop
    ) => BringAsync(source, revision, Parts.Config, watcher, stop);

    /// <summary>Brings what turns text into tokens beside that: tokenizer and chat template, a few MB.</summary>
    public Task<Snapshot> TextAsync(
        ModelSource source,
        string? revision,
        IPullWatcher watcher,
        CancellationToken stop
    ) => BringAsync(source, revision, Parts.Text, watcher, stop);

    /// <summary>Brings the whole model: config, tokenizer, weights.</summary>
    public Task<Snapshot> PullAsync(
        ModelSource source,
        string? revision,
        IPullWatcher watcher,
        CancellationToken stop
    ) => BringAsync(source, revision, Parts.All, watcher, stop);

    /// <summary>Brings the files of a data set that a source means: rows only, never code. The files given are those,
    /// in order of their names.</summary>
    public async Task<Snapshot> DataAsync(HubDataSet source, IPullWatcher watcher, CancellationToken stop)
    {
        http.Retrying = watcher.Note;
        var remote = new HuggingFace(source.Id, settings, http, dataSet: true);
        var cache = new ModelCache(remote.CacheRoot, remote.CacheFolder);
        var wanted = ModelFiles.Safe(source.Revision ?? remote.DefaultRevision);
        if (
            (settings.Offline || cache.Has(wanted))
            && cache.Commit(wanted) is { } known
            && cache.Chosen(known, source.ToString()) is { } all
            && all.All(name => ModelFiles.IsHere(Path.Combine(cache.Snapshot(known), name)))
        )
            return Only(known, all);
        if (settings.Offline)
            throw new UserFault(
                $"{source} is not whole in the cache, and --offline asks no server.",
                found: cache.Folder,
                next: $"dotnet memopt pull {source}   (without --offline)"
            )
            {
                Failed = true,
            };
        var listed = await remote.ListAsync(wanted, stop).ConfigureAwait(false);
        var card = source.Path is null ? listed.Files.GetValueOrDefault(ModelFiles.Card) : null;
        var (read, _) = await FilesAsync(cache, listed.Commit, card is null ? [] : [card], watcher, stop)
            .ConfigureAwait(false);
        var names = source.Choose(
            listed.Files.Keys,
            card is null
                ? null
                : UntrustedFile.ReadAllText(
                    Path.Combine(cache.Snapshot(listed.Commit), card.Path),
                    UntrustedFile.Settings
                )
        );
        if (names.Count == 0)
        {
            throw new UserFault(
                $"{source} has no files of rows{(source.Path is null ? "" : " there")}.",
                found: $"{listed.Files.Count} files: "
                    + $"{string.Join(", ", listed.Files.Keys.Order(StringComparer.Ordinal).Take(8))}",
                next: $"name some, hf:{source.Id}/data/*.parquet, or take the hub's own conversion, "
                    + $"hf:{source.Id}@refs/convert/parquet"
            );
        }
        var (fetched, resumed) = await FilesAsync(
                cache,
                listed.Commit,
                [.. names.Select(name => listed.Files[name])],
                watcher,
                stop
            )
            .ConfigureAwait(false);
        cache.Choose(listed.Commit, source.ToString(), names);
        cache.Remember(wanted, listed.Commit);
        return Only(listed.Commit, names) with { FetchedBytes = read + fetched, ResumedBytes = resumed };

        Snapshot Only(string commit, IReadOnlyList<string> files)
        {
            var here = Here(source.ToString(), cache, commit);
            var chosen = files.ToHashSet();
            return here with { Files = [.. here.Files.Where(file => chosen.Contains(file.Path))] };
        }
    }

    /// <summary>What is in the caches.</summary>
    public CachedModels Cached() => new(settings);

    public void Dispose()
    {
        downloader.Dispose();
        http.Dispose();
    }

    private async Task<Snapshot> BringAsync(
        ModelSource source,
        string? revision,
        Parts parts,
        IPullWatcher watcher,
        CancellationToken stop
    )
    {
        if (source.Kind == SourceKind.Embedded)
            return new(Nano, Path.Combine(settings.Program, "models", "nano"), null, []);
        if (source.Kind == SourceKind.Folder)
            return new(source.Name, source.Name, null, []);
        http.Retrying = watcher.Note;
        var remote = await RemoteAsync(source, stop).ConfigureAwait(false);
        var cache = new ModelCache(remote.CacheRoot, remote.CacheFolder);
        var wanted = ModelFiles.Safe(revision ?? remote.DefaultRevision);
        if (settings.Offline || cache.Has(wanted))
        {
            // A commit never changes, so a whole snapshot of it needs no server.
            var commit = cache.Commit(wanted);
            var missing = commit is null
                ? ["everything"]
                : ModelFiles
                    .Missing(cache.Snapshot(commit))
                    .Where(name => parts == Parts.All || name == ModelLayout.Config);
            if (
                !missing.Any()
                && (
                    settings.Offline
                    || parts == Parts.Config
                    || Whole(cache, commit!, parts)
                    || Whole(cache, commit!, Parts.All)
                )
            )
                return Here(source.ToString(), cache, commit!);
            if (settings.Offline)
            {
                throw new UserFault(
                    $"{source} is not whole in the cache, and --offline asks no server.",
                    found: $"missing in {cache.Folder}: {string.Join(", ", missing.Take(5))}",
                    next: $"dotnet memopt pull {source}{(revision is null ? "" : $" --revision {revision}")}   "
                        + "(without --offline)"
                )
                {
                    Failed = true,
                };
            }
        }

        var model = await remote.ListAsync(wanted, stop).ConfigureAwait(false);
        var small = model
            .Files.Values.Where(file =>
                parts == Parts.Config
                    ? file.Path is ModelLayout.Config or ModelLayout.Generation
                    : ModelLayout.IsSmall(file.Path)
            )
            .ToList();
        if (small.All(file => file.Path != ModelLayout.Config))
            throw new UserFault(
                $"{source} is not a model that can be trained.",
                found: $"no config.json among {model.Files.Count} files",
                next: "name a model of transformers' layout"
            );
        var (fetched, resumed) = await FilesAsync(cache, model.Commit, small, watcher, stop).ConfigureAwait(false);
        if (parts == Parts.All)
        {
            async Task Also(IReadOnlyList<RemoteFile> files)
            {
                var (got, had) = await FilesAsync(cache, model.Commit, files, watcher, stop).ConfigureAwait(false);
                (fetched, resumed) = (fetched + got, resumed + had);
                small.AddRange(files);
            }
            if (
                !model.Files.ContainsKey(ModelLayout.Weights)
                && model.Files.TryGetValue(ModelLayout.Index, out var index)
            )
                await Also([index]).ConfigureAwait(false);
            await Also(Weights(source, model, cache)).ConfigureAwait(false);
        }
        if (parts != Parts.Config)
            Mark(cache, model.Commit, parts, [.. small.Select(file => file.Path)]);
        cache.Remember(wanted, model.Commit);
        return Here(source.ToString(), cache, model.Commit) with { FetchedBytes = fetched, ResumedBytes = resumed };
    }

    /// <summary>Whether a pull of this version has brought all of a commit. A snapshot that another version or another
    /// program made may lack files that are read here, such as a chat template: its server is asked.
    /// </summary>
    private static bool Whole(ModelCache cache, string commit, Parts parts) =>
        cache.Chosen(commit, MarkOf(parts)) is { } names
        && names.All(name => ModelFiles.IsHere(ModelLayout.In(cache.Snapshot(commit), name)));

    private static void Mark(ModelCache cache, string commit, Parts parts, IReadOnlyList<string> names)
    {
        try
        {
            if (!Whole(cache, commit, parts))
                cache.Choose(commit, MarkOf(parts), names);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            // A cache that is only read: the mark saves a request, no more.
        }
    }

    private static string MarkOf(Parts parts) => $"{parts} of {string.Join(' ', ModelLayout.Small)}";

    /// <summary>Files of a commit, several at once: whole in the cache when this returns. Gives bytes fetched and bytes
    /// found from before.</summary>
    private async Task<(long Fetched, long Resumed)> FilesAsync(
        ModelCache cache,
        string commit,
        IReadOnlyList<RemoteFile> files,
        IPullWatcher watcher,
        CancellationToken stop
    )
    {
        ModelFiles.SafePart(commit);
        foreach (var file in files)
        {
            ModelFiles.SafePart(file.Blob);
            ModelFiles.CheckSize(file.Path, file.Size);
        }
        long fetched = 0,
            resumed = 0;
        try
        {
            CheckSpace(cache, files);
            // Files of one content are one blob, under one lock: after each other, as they would wait for it as for
            // another process.
            await Parallel
                .ForEachAsync(
                    files.GroupBy(file => file.Blob),
                    new ParallelOptions { MaxDegreeOfParallelism = filesAtOnce, CancellationToken = stop },
                    async (same, token) =>
                    {
                        foreach (var file in same)
                        {
                            var (got, had) = await FileAsync(cache, commit, file, watcher, token).ConfigureAwait(false);
                            Interlocked.Add(ref fetched, got);
                            Interlocked.Add(ref resumed, had);
                        }
                    }
                )
                .ConfigureAwait(false);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException { HResult: readOnlyFileSystem })
        {
            throw new UserFault(
                $"The cache {cache.Root} cannot be written.",
                e.Message,
                "set HF_HOME (XDG_CACHE_HOME for what is not from the Hugging Face Hub) to a folder that can be, "
                    + "or mend its rights",
                e
            )
            {
                Failed = true,
            };
        }
        return (fetched, resumed);
    }

    private static IReadOnlyList<RemoteFile> Weights(ModelSource source, RemoteModel model, ModelCache cache)
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

    /// <summary>One file: whole in the cache under its name when this returns. Gives bytes fetched and bytes found from
    /// before.</summary>
    private async Task<(long Fetched, long Resumed)> FileAsync(
        ModelCache cache,
        string commit,
        RemoteFile file,
        IPullWatcher watcher,
        CancellationToken stop
    )
    {
        var blob = cache.Blob(file.Blob);
        var told = file.Resumable || file.Hash is not null; // else nothing says that it is still the same
        if (told && new FileInfo(blob) is { Exists: true } whole && whole.Length == file.Size)
        {
            // Without the lock: a cache that may only be read will do.
            watcher.Advance(file.Path, file.Size, file.Size, file.Size);
            cache.Link(commit, file);
            return (0, 0);
        }
        Directory.CreateDirectory(Path.GetDirectoryName(blob)!);
        long fetched = 0,
            resumed = 0;
        using (
            await cache
                .LockAsync(
                    file.Blob,
                    clock,
                    () => watcher.Note($"{file.Path}: another process is fetching it; waiting"),
                    stop
                )
                .ConfigureAwait(false)
        )
        {
            if (new FileInfo(blob) is { Exists: true } old && (old.Length != file.Size || !told))
                File.Delete(blob); // cut short by something else
            for (var again = false; !File.Exists(blob); again = true)
            {
                var (got, had) = await PartAsync(cache, file, again, watcher, stop).ConfigureAwait(false);
                (fetched, resumed) = (fetched + got, resumed + had);
            }
        }
        watcher.Advance(file.Path, file.Size, file.Size, file.Size - Math.Min(fetched, file.Size));
        cache.Link(commit, file);
        return (fetched, resumed);
    }

    private async Task<(long Fetched, long Resumed)> PartAsync(
        ModelCache cache,
        RemoteFile file,
        bool again,
        IPullWatcher watcher,
        CancellationToken stop
    )
    {
        var path = cache.Part(file.Blob);
        long fetched,
            resumed;
        Digest hash;
        using (
            var part = PartFile.Open(
                path,
                file.Blob,
                file.Size,
                file.Resumable ? settings.PartBytes : Math.Max(1, file.Size)
            )
        )
        using (var failed = CancellationTokenSource.CreateLinkedTokenSource(stop))
        {
            resumed = part.Resumed;
            watcher.Advance(file.Path, resumed, file.Size, resumed);
            // Bytes that cannot be resumed are written over by another attempt: those are hashed at the end.
            var hashing = Task.Run(
                () =>
                    Digest.FollowAsync(
                        file.Hash?.Algorithm ?? "sha256",
                        path,
                        file.Size,
                        () => file.Resumable || part.Prefix == file.Size ? part.Prefix : 0,
                        clock,
                        failed.Token
                    ),
                CancellationToken.None
            );
            try
            {
                await downloader
                    .FetchAsync(file, part, () => watcher.Advance(file.Path, part.DoneBytes, file.Size, resumed), stop)
                    .ConfigureAwait(false);
            }
            catch
            {
                failed.Cancel();
                await Task.WhenAny(hashing).ConfigureAwait(false);
                throw;
            }
            hash = await hashing.ConfigureAwait(false);
            part.Finish();
            fetched = part.DoneBytes - resumed;
        }
        if (file.Hash is not null && hash != file.Hash)
        {
            // Nothing tells which bytes are wrong, so all of them go.
            File.Delete(path);
            watcher.Note($"{file.Path}: the bytes are not those that the hub promises; fetching it again");
            return !again
                ? (fetched, resumed)
                : throw new UserFault(
                    $"{file.Path} arrives damaged.",
                    found: $"{hash}, the hub says {file.Hash}",
                    next: "try another network or mirror (HF_ENDPOINT)"
                )
                {
                    Failed = true,
                };
        }
        if (Digest.OfBlobName(file.Blob) is null)
            cache.Note(
                file.Blob,
                hash.Algorithm == "sha256"
                    ? hash
                    : await Digest.ComputeAsync("sha256", path, stop).ConfigureAwait(false)
            );
        File.Move(path, cache.Blob(file.Blob), overwrite: true);
        return (fetched, resumed);
    }

    /// <summary>Refuses before the first byte what would not fit at the end.</summary>
    private void CheckSpace(ModelCache cache, IReadOnlyList<RemoteFile> files)
    {
        var needed = files
            .DistinctBy(file => file.Blob)
            .Where(file => !File.Exists(cache.Blob(file.Blob)))
            .Sum(file =>
                file.Size
                - (
                    File.Exists(cache.Part(file.Blob))
                        ? PartFile.Stored(cache.Part(file.Blob), file.Blob, file.Size)
                        : 0
                )
            );
        Directory.CreateDirectory(cache.Root);
        var free = FreeBytes(cache.Root);
        if (needed > 0 && needed + spare > free)
        {
            throw new UserFault(
                "The download does not fit on the disk.",
                found: $"{needed / 1048576.0:N0} MiB to fetch, {free / 1048576.0:N0} MiB free in {cache.Root}",
                next: "dotnet memopt cache ls shows what could go (cache rm), or set HF_HOME to a larger disk"
            )
            {
                Failed = true,
            };
        }
    }

    private static Snapshot Here(string source, ModelCache cache, string commit) =>
        new(
            source,
            cache.Snapshot(commit),
            commit,
            [
                .. cache
                    .Files(commit)
                    .Select(file => new LocalFile(
                        file.Path,
                        file.Size,
                        (cache.Expected(file.Blob) ?? new Digest("etag", file.Blob)).ToString()
                    )),
            ]
        );

    private async Task<IRemote> RemoteAsync(ModelSource source, CancellationToken stop)
    {
        switch (source.Kind)
        {
            case SourceKind.HuggingFace:
                return new HuggingFace(source.Name, settings, http);
            case SourceKind.ModelScope:
                return new ModelScope(source.Name, settings, http);
            case SourceKind.Web:
                var address = new Uri(source.Name);
                return new WebFolder(
                    address,
                    $"web--{address.Host}--{CacheKey.Of(address.GetLeftPart(UriPartial.Path))[..12]}",
                    null,
                    settings,
                    http
                );
            default:
                var parts = source.Name.Split('/', 2);
                var container = new UriBuilder(
                    $"{settings.Azure.Replace("{account}", parts[0]).TrimEnd('/')}/{parts[1]}"
                );
                Login? login = null;
                if (settings.AzureSas is { Length: > 0 } signature)
                    container.Query = signature.TrimStart('?');
                else if (settings.AzureToken is { } token && !settings.Offline)
                    login = new(container.Uri, "Authorization", $"Bearer {await token(stop).ConfigureAwait(false)}");
                return new WebFolder(
                    container.Uri,
                    $"azure--{parts[0]}--{CacheKey.Of(source.Name)[..12]}",
                    login,
                    settings,
                    http
                );
        }
    }
}
