namespace Memopt.Tracking;

/// <summary>What went over the network.</summary>
/// <param name="Blocks">Blocks that the service acknowledged; content that was there needs none.</param>
/// <param name="Bytes">Bytes in them.</param>
public sealed record Sent(long Blocks, long Bytes);

/// <summary>Artifacts in Azure Blob Storage, laid out as in a local store and with the same hashes. Whatever is put is
/// stored locally first and then uploaded, so a fault of the network loses nothing; whatever is got is downloaded into
/// the local store. Both go on where a kill, of this process or of the server, cut them off.
/// </summary>
public sealed class BlobArtifacts : IArtifactStore
{
    private readonly LocalArtifacts local;
    private readonly BlobFolder folder;
    private readonly BlobTransfer transfer = new();
    private readonly BlobDownload download;

    /// <param name="local">Where everything put or got is stored here.</param>
    /// <param name="location">Where it goes.</param>
    /// <param name="attempts">Of each request. Waits double from half a second to 20 seconds, with jitter: eight are a
    /// minute.</param>
    public BlobArtifacts(LocalArtifacts local, BlobLocation location, int attempts = 8)
    {
        (this.local, folder) = (local, new(location, attempts));
        download = new(folder, local, transfer);
    }

    /// <summary>Receives the bytes of each block sent or range received.</summary>
    public Action<long>? Moved
    {
        get => transfer.Moved;
        init => transfer.Moved = value;
    }

    /// <summary>Ends transfers.</summary>
    public CancellationToken Stop
    {
        get => folder.Stop;
        init => folder.Stop = value;
    }

    /// <inheritdoc cref="BlobTransfer.BlockBytes"/>
    internal int BlockBytes
    {
        get => transfer.BlockBytes;
        init => transfer.BlockBytes = value;
    }

    /// <summary>The storage account and the folder in it.</summary>
    public BlobLocation Place => folder.Location;

    public ArtifactLink Put(string name, string path)
    {
        var link = local.Put(name, path);
        Push(link.Hash);
        return link with { Place = Place.ToString() };
    }

    /// <summary>Uploads an artifact of the local store; what is there already is not sent again.</summary>
    public Sent Push(string hash) => Push(hash, repair: false);

    /// <param name="hash">An artifact of the local store.</param>
    /// <param name="repair">Whether what is there is read, and sent again where it was changed.</param>
    internal Sent Push(string hash, bool repair) =>
        Push(local.Guard(() => local.Read(hash)), file => local.Object(file.Hash), repair);

    /// <summary>Uploads what a run left, from wherever it lies.</summary>
    internal Sent Push(Upload upload) =>
        upload.Files is { } files ? Push(Manifest.Of(files), upload.Source) : Push(upload.Link.Hash);

    /// <summary>Uploads what is only here: artifacts of the local store, and what trainings left to be sent. Links of
    /// runs then name the account.
    /// </summary>
    /// <param name="runs">Where the links are, or null.</param>
    /// <param name="only"> Artifacts of the local store to be sent as far as the account lacks their content, in place
    /// of all that it does not list. What it has of them is read, and sent again where it was changed.
    /// </param>
    public (IReadOnlyList<string> Hashes, Sent Sent) Sync(IRunStore? runs, IReadOnlyList<string>? only = null) =>
        new BlobSync(this, local, runs).Run(only);

    /// <summary>Uploads files from wherever they lie.</summary>
    private Sent Push(Manifest manifest, Func<ArtifactFile, string> source, bool repair = false) =>
        folder.Guard(async () =>
        {
            var upload = new BlobUpload(folder, download, transfer) { Repair = repair };
            foreach (var file in manifest.Files.DistinctBy(file => file.Hash))
                await upload.RunAsync(file, source(file)).ConfigureAwait(false);
            // The manifest last: an artifact that is listed is whole.
            await folder.WriteManifestAsync(manifest).ConfigureAwait(false);
            return upload.Sent;
        });

    public void Get(string hash, string intoFolder)
    {
        Pull(hash);
        local.Get(hash, intoFolder);
    }

    /// <summary>Downloads an artifact into the local store, as far as it is not there whole.</summary>
    public void Pull(string hash) =>
        folder.Guard(async () =>
        {
            var manifest = local.Has(hash)
                ? local.Guard(() => local.Read(hash))
                : await folder.ReadManifestAsync(hash).ConfigureAwait(false);
            foreach (var file in manifest.Files.DistinctBy(file => file.Hash))
            {
                if (!local.Guard(() => local.Whole(file.Hash)))
                    await download.RunAsync(file, hash).ConfigureAwait(false);
            }
            return local.Guard(() =>
            {
                local.Add(manifest);
                return true;
            });
        });

    public IReadOnlyList<string> List() => [.. local.List().Union(Uploaded()).Order(StringComparer.Ordinal)];

    /// <summary>Hashes of the artifacts that are in the storage account.</summary>
    public IReadOnlyList<string> Uploaded() =>
        [.. Texts("manifests/").Where(Manifest.IsHash).Order(StringComparer.Ordinal)];

    /// <summary>Names of what lies in a folder of the account.</summary>
    internal IReadOnlyList<string> Texts(string path) => folder.Guard(() => folder.ListAsync(path));

    /// <inheritdoc cref="BlobFolder.ReadAsync"/>
    internal (byte[]? Content, string? Tag) ReadText(string path) => folder.Guard(() => folder.ReadAsync(path));

    /// <inheritdoc cref="BlobFolder.WriteAsync"/>
    internal bool WriteText(string path, byte[] content, string? tag) =>
        folder.Guard(() => folder.WriteAsync(path, content, tag));

    public IReadOnlyList<ArtifactFile> Files(string hash) =>
        local.Has(hash)
            ? local.Files(hash)
            : folder.Guard(async () => (await folder.ReadManifestAsync(hash).ConfigureAwait(false)).Files);

    /// <summary>Reads the content in the storage account, and what of the artifact is here.</summary>
    public IReadOnlyList<string> Verify(string hash) =>
        folder.Guard(async () =>
        {
            var here = local.Has(hash);
            var problems = here ? local.Verify(hash).ToList() : [];
            if (here && await folder.FindAsync(folder.ManifestBlob(hash)).ConfigureAwait(false) is null)
                return [.. problems, "not uploaded yet; run: dotnet memopt artifacts sync"];
            foreach (var file in (await folder.ReadManifestAsync(hash).ConfigureAwait(false)).Files)
            {
                var found = await folder.FindAsync(folder.ContentBlob(file.Hash)).ConfigureAwait(false);
                if (found is null)
                    problems.Add($"the content of {file.Path} is missing ({Place}, {folder.Name(file.Hash)})");
                else if (
                    found.ContentLength != file.Bytes
                    || await download.HashAsync(file).ConfigureAwait(false) != file.Hash
                )
                    problems.Add(
                        $"the content of {file.Path} was changed ({Place}, {folder.ContentBlob(file.Hash).Name}); to "
                            + $"send it again where it is whole: dotnet memopt artifacts sync {hash[..12]}"
                    );
            }
            return problems;
        });

    /// <summary>Removes an artifact here and in the storage account. Nobody else should upload meanwhile: what they
    /// find there already may go.</summary>
    public void Delete(string hash) =>
        folder.Guard(async () =>
        {
            if (await folder.FindAsync(folder.ManifestBlob(hash)).ConfigureAwait(false) is not null)
            {
                var mine = (await folder.ReadManifestAsync(hash).ConfigureAwait(false))
                    .Files.Select(file => file.Hash)
                    .ToHashSet();
                await folder.DeleteAsync(folder.ManifestBlob(hash)).ConfigureAwait(false);
                foreach (var other in Uploaded())
                    mine.ExceptWith(
                        (await folder.ReadManifestAsync(other).ConfigureAwait(false)).Files.Select(file => file.Hash)
                    );
                foreach (var orphan in mine)
                    await folder.DeleteAsync(folder.ContentBlob(orphan)).ConfigureAwait(false);
            }
            if (local.Has(hash))
                local.Delete(hash);
            return true;
        });
}
