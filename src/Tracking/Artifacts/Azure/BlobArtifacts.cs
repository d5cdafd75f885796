using System.Buffers;
using System.Buffers.Binary;
using System.Security.Cryptography;
using Azure;
using Azure.Identity;
using Azure.Storage;
using Azure.Storage.Blobs;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;
using Polly;
using Polly.Retry;

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
    private const int parallel = 4,
        mostBlocks = 50_000;
    private const string sha256 = "sha256";
    private static readonly TimeSpan patience = TimeSpan.FromMinutes(10);

    // The service checks each block, and the client each range, by MD5; the whole is checked by sha256.
    private static readonly UploadTransferValidationOptions checkedUp = new()
    {
        ChecksumAlgorithm = StorageChecksumAlgorithm.MD5,
    };
    private static readonly DownloadTransferValidationOptions checkedDown = new()
    {
        ChecksumAlgorithm = StorageChecksumAlgorithm.MD5,
        AutoValidateChecksum = true,
    };
    private readonly LocalArtifacts local;
    private readonly BlobLocation location;
    private readonly BlobContainerClient container;
    private readonly ResiliencePipeline retry;
    private bool reached;

    /// <param name="local">Where everything put or got is stored here.</param>
    /// <param name="location">Where it goes.</param>
    /// <param name="attempts">Of each request. Waits double from half a second to 20 seconds, with jitter: eight are a
    /// minute.</param>
    public BlobArtifacts(LocalArtifacts local, BlobLocation location, int attempts = 8)
    {
        (this.local, this.location, container) = (local, location, location.Connect());
        retry = new ResiliencePipelineBuilder()
            .AddRetry(
                new RetryStrategyOptions
                {
                    MaxRetryAttempts = Math.Max(1, attempts - 1),
                    BackoffType = DelayBackoffType.Exponential,
                    UseJitter = true,
                    Delay = TimeSpan.FromSeconds(0.5),
                    MaxDelay = TimeSpan.FromSeconds(20),
                    ShouldHandle = new PredicateBuilder().Handle<Exception>(e =>
                        !Stop.IsCancellationRequested && Passing(e)
                    ),
                }
            )
            .Build();
    }

    /// <summary>Told the bytes of each block sent or range received.</summary>
    public Action<long>? Moved { get; init; }

    /// <summary>Ends transfers.</summary>
    public CancellationToken Stop { get; init; }

    /// <summary>Bytes of a block, and of a range asked for at once (MD5 of a range ends at 4 MiB); a kill costs four of
    /// them at most. Files too large for 50,000 such blocks have larger ones.</summary>
    internal int BlockBytes { get; init; } = 2 << 20;

    /// <summary>The storage account and the folder in it.</summary>
    public BlobLocation Place => location;

    public ArtifactLink Put(string name, string path)
    {
        var link = local.Put(name, path);
        Push(link.Hash);
        return link with { Place = location.ToString() };
    }

    /// <summary>Uploads an artifact of the local store; what is there already is not sent again.</summary>
    public Sent Push(string hash) => Push(hash, mend: false);

    private Sent Push(string hash, bool mend) =>
        Push(local.Guard(() => local.Read(hash)), file => local.Object(file.Hash), mend);

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
    public (IReadOnlyList<string> Hashes, Sent Sent) Sync(IRunStore? runs, IReadOnlyList<string>? only = null)
    {
        var (done, sent, there) = (new List<string>(), new Sent(0, 0), Uploaded().ToHashSet());
        void Push(string hash, Func<Sent> push)
        {
            var now = push();
            if (now.Blocks > 0 || !there.Contains(hash))
                done.Add(hash);
            sent = new(sent.Blocks + now.Blocks, sent.Bytes + now.Bytes);
        }
        foreach (var hash in only ?? [.. local.List().Except(there)])
            Push(hash, () => this.Push(hash, mend: only is not null));
        there.UnionWith(done);
        foreach (
            var upload in local
                .Notes(location)
                .Where(upload => only?.Contains(upload.Link.Hash) ?? true)
                .Where(upload => runs?.Get(upload.Run)?.Status != RunStatus.Running)
        ) // one that trains sends its own
        {
            if (!there.Contains(upload.Link.Hash) && upload.There(local))
            {
                Push(upload.Link.Hash, () => this.Push(upload));
                there.Add(upload.Link.Hash);
            }
            if (there.Contains(upload.Link.Hash))
                Tell(upload.Run, upload.Safe(location));
            local.Forget(upload);
        }
        foreach (var run in runs?.Find(new RunQuery { Limit = int.MaxValue - 1 }).Runs ?? [])
        {
            foreach (var link in run.Artifacts.Where(link => link.Place is null && there.Contains(link.Hash)))
                Tell(run.Start.Id, link with { Place = location.ToString() });
        }
        return (done, sent);

        void Tell(string run, ArtifactLink link)
        {
            if (runs?.Get(run) is not { Status: not RunStatus.Running })
                return;
            using var writer = runs.Amend(run);
            writer.Link(link);
        }
    }

    /// <summary>Uploads files from wherever they lie.</summary>
    private Sent Push(Manifest manifest, Func<ArtifactFile, string> source, bool mend = false) =>
        Guard(async () =>
        {
            var hash = manifest.Hash;
            long blocks = 0,
                bytes = 0;
            foreach (var file in manifest.Files.DistinctBy(file => file.Hash))
            {
                await UploadAsync(
                        file,
                        source(file),
                        mend,
                        sent =>
                        {
                            Interlocked.Increment(ref blocks);
                            Interlocked.Add(ref bytes, sent);
                        }
                    )
                    .ConfigureAwait(false);
            }
            // The manifest last: an artifact that is listed is whole.
            if (await FindAsync(ManifestBlob(hash)).ConfigureAwait(false) is null)
            {
                try
                {
                    await RetryAsync(stop =>
                            ManifestBlob(hash)
                                .UploadAsync(
                                    new MemoryStream(manifest.Content),
                                    new BlobUploadOptions
                                    {
                                        Conditions = OnlyNew(),
                                        Metadata = Sha(hash),
                                        TransferValidation = checkedUp,
                                    },
                                    stop
                                )
                        )
                        .ConfigureAwait(false);
                }
                catch (RequestFailedException e) when (IsThere(e))
                {
                    await ManifestAsync(hash).ConfigureAwait(false);
                }
            }
            return new Sent(blocks, bytes);
        });

    public void Get(string hash, string intoFolder)
    {
        Pull(hash);
        local.Get(hash, intoFolder);
    }

    /// <summary>Downloads an artifact into the local store, as far as it is not there whole.</summary>
    public void Pull(string hash) =>
        Guard(async () =>
        {
            var manifest = local.Has(hash)
                ? local.Guard(() => local.Read(hash))
                : await ManifestAsync(hash).ConfigureAwait(false);
            foreach (var file in manifest.Files.DistinctBy(file => file.Hash))
            {
                if (!local.Guard(() => local.Whole(file.Hash)))
                    await DownloadAsync(file, hash).ConfigureAwait(false);
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
    internal IReadOnlyList<string> Texts(string folder) =>
        Guard(async () =>
        {
            var beginning = Name(folder);
            return await RetryAsync(async stop =>
                {
                    var found = new List<string>();
                    await foreach (
                        var blob in container
                            .GetBlobsAsync(new GetBlobsOptions { Prefix = beginning }, stop)
                            .ConfigureAwait(false)
                    )
                        found.Add(blob.Name[beginning.Length..]);
                    return found;
                })
                .ConfigureAwait(false);
        });

    /// <summary>A small file of the account and the tag of its present version; nulls when it is not there.</summary>
    internal (byte[]? Content, string? Tag) ReadText(string path) =>
        Guard(async () =>
        {
            try
            {
                var answer = await RetryAsync(stop => container.GetBlobClient(Name(path)).DownloadContentAsync(stop))
                    .ConfigureAwait(false);
                return ((byte[]?)answer.Value.Content.ToArray(), (string?)answer.Value.Details.ETag.ToString());
            }
            catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
            {
                return (null, null);
            }
        });

    /// <summary>Replaces a small file as long as it is the version of that tag, or with null is not there; false when
    /// somebody else was first.</summary>
    internal bool WriteText(string path, byte[] content, string? tag) =>
        Guard(async () =>
        {
            try
            {
                var conditions = tag is null ? OnlyNew() : new() { IfMatch = new ETag(tag) };
                await RetryAsync(stop =>
                        container
                            .GetBlobClient(Name(path))
                            .UploadAsync(
                                new MemoryStream(content),
                                new BlobUploadOptions { Conditions = conditions, TransferValidation = checkedUp },
                                stop
                            )
                    )
                    .ConfigureAwait(false);
                return true;
            }
            catch (RequestFailedException e) when (IsThere(e))
            {
                return false;
            }
        });

    public IReadOnlyList<ArtifactFile> Files(string hash) =>
        local.Has(hash)
            ? local.Files(hash)
            : Guard(async () => (await ManifestAsync(hash).ConfigureAwait(false)).Files);

    /// <summary>Reads the content in the storage account, and what of the artifact is here.</summary>
    public IReadOnlyList<string> Verify(string hash) =>
        Guard(async () =>
        {
            var here = local.Has(hash);
            var problems = here ? local.Verify(hash).ToList() : [];
            if (here && await FindAsync(ManifestBlob(hash)).ConfigureAwait(false) is null)
                return [.. problems, "not uploaded yet; run: dotnet memopt artifacts sync"];
            foreach (var file in (await ManifestAsync(hash).ConfigureAwait(false)).Files)
            {
                var found = await FindAsync(ContentBlob(file.Hash)).ConfigureAwait(false);
                if (found is null)
                    problems.Add($"the content of {file.Path} is missing ({location}, {Name(file.Hash)})");
                else if (found.ContentLength != file.Bytes || await HashAsync(file).ConfigureAwait(false) != file.Hash)
                    problems.Add(
                        $"the content of {file.Path} was changed ({location}, {ContentBlob(file.Hash).Name}); to "
                            + $"send it again where it is whole: dotnet memopt artifacts sync {hash[..12]}"
                    );
            }
            return problems;
        });

    /// <summary>Removes an artifact here and in the storage account. Nobody else should upload meanwhile: what they
    /// find there already may go.</summary>
    public void Delete(string hash) =>
        Guard(async () =>
        {
            if (await FindAsync(ManifestBlob(hash)).ConfigureAwait(false) is not null)
            {
                var mine = (await ManifestAsync(hash).ConfigureAwait(false))
                    .Files.Select(file => file.Hash)
                    .ToHashSet();
                await RetryAsync(stop => ManifestBlob(hash).DeleteIfExistsAsync(cancellationToken: stop))
                    .ConfigureAwait(false);
                foreach (var other in Uploaded())
                    mine.ExceptWith((await ManifestAsync(other).ConfigureAwait(false)).Files.Select(file => file.Hash));
                foreach (var orphan in mine)
                    await RetryAsync(stop => ContentBlob(orphan).DeleteIfExistsAsync(cancellationToken: stop))
                        .ConfigureAwait(false);
            }
            if (local.Has(hash))
                local.Delete(hash);
            return true;
        });

    private async Task UploadAsync(ArtifactFile file, string source, bool mend, Action<long> sent)
    {
        var blob = ContentBlob(file.Hash);
        for (var again = 0; ; again++)
        {
            var found = await FindAsync(blob).ConfigureAwait(false);
            var damaged =
                found is not null
                && mend
                && (found.ContentLength != file.Bytes || await HashAsync(file).ConfigureAwait(false) != file.Hash);
            if (found is not null && !damaged && !Wrong(found, file))
                return;
            // What is damaged is replaced as long as it is still that version.
            var conditions = damaged ? new BlobRequestConditions { IfMatch = found!.ETag } : OnlyNew();
            // Blocks are named by place and content, so those that an earlier attempt left prove themselves.
            var there = await UncommittedAsync(blob).ConfigureAwait(false);
            var ids = new List<string>();
            await Parallel
                .ForEachAsync(
                    Blocks(file, source, there, ids),
                    new ParallelOptions { MaxDegreeOfParallelism = parallel, CancellationToken = Stop },
                    async (block, stop) =>
                    {
                        try
                        {
                            await retry
                                .ExecuteAsync(
                                    async token =>
                                        await blob.StageBlockAsync(
                                                block.Id,
                                                new MemoryStream(block.Buffer, 0, block.Length),
                                                new BlockBlobStageBlockOptions { TransferValidation = checkedUp },
                                                token
                                            )
                                            .ConfigureAwait(false),
                                    stop
                                )
                                .ConfigureAwait(false);
                        }
                        finally
                        {
                            ArrayPool<byte>.Shared.Return(block.Buffer);
                        }
                        sent(block.Length);
                        Moved?.Invoke(block.Length);
                    }
                )
                .ConfigureAwait(false);
            try
            {
                await RetryAsync(stop =>
                        blob.CommitBlockListAsync(
                            ids,
                            new CommitBlockListOptions { Conditions = conditions, Metadata = Sha(file.Hash) },
                            stop
                        )
                    )
                    .ConfigureAwait(false);
                return;
            }
            catch (RequestFailedException e)
                when (IsThere(e) || (e.ErrorCode == BlobErrorCode.InvalidBlockList && again < 5))
            {
                // Another client, or this one's commit whose answer was lost, was first; or the server lost blocks,
                // which are sent again.
            }
        }
    }

    /// <summary>A file's blocks that are not there yet, read in order; <paramref name="ids"/> gets the names of all.
    /// The end is reached only if the whole is what its hash says.</summary>
    private IEnumerable<(string Id, byte[] Buffer, int Length)> Blocks(
        ArtifactFile file,
        string path,
        HashSet<string> there,
        List<string> ids
    )
    {
        var size = (int)Math.Max(BlockBytes, (file.Bytes + mostBlocks - 1) / mostBlocks);
        using var whole = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var source = new FileStream(
            path,
            FileMode.Open,
            FileAccess.Read,
            FileShare.Read | FileShare.Delete,
            bufferSize: 0
        );
        var name = new byte[4 + SHA256.HashSizeInBytes];
        for (var (index, left) = (0, file.Bytes); left > 0; index++)
        {
            var buffer = ArrayPool<byte>.Shared.Rent(size);
            var length = (int)Math.Min(size, left);
            source.ReadExactly(buffer, 0, length);
            left -= length;
            whole.AppendData(buffer, 0, length);
            BinaryPrimitives.WriteInt32BigEndian(name, index);
            SHA256.HashData(buffer.AsSpan(0, length), name.AsSpan(4));
            ids.Add(Convert.ToBase64String(name));
            if (there.Contains(ids[^1]))
                ArrayPool<byte>.Shared.Return(buffer);
            else
                yield return (ids[^1], buffer, length);
        }
        if (Convert.ToHexStringLower(whole.GetHashAndReset()) != file.Hash)
            throw new TrackingException($"The content of {file.Path} was changed ({path}); it is not uploaded.")
            {
                Next = "remove that file and put the artifact again",
            };
    }

    private async Task<HashSet<string>> UncommittedAsync(BlockBlobClient blob)
    {
        try
        {
            var list = await RetryAsync(stop =>
                    blob.GetBlockListAsync(BlockListTypes.Uncommitted, cancellationToken: stop)
                )
                .ConfigureAwait(false);
            return [.. list.Value.UncommittedBlocks.Select(block => block.Name)];
        }
        catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
        {
            return [];
        }
    }

    /// <summary>Content into the local store: a part file that grows range by range, renamed when its hash is
    /// right.</summary>
    private async Task DownloadAsync(ArtifactFile file, string artifact)
    {
        var target = local.Object(file.Hash);
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        var resumed = true;
        while (resumed)
        {
            var right = false;
            using (var part = await OpenAloneAsync(target + ".part").ConfigureAwait(false))
            {
                if (part.Length > file.Bytes)
                    part.SetLength(0);
                resumed = part.Length > 0;
                part.Position = part.Length;
                await foreach (var content in RangesAsync(file, part.Length).ConfigureAwait(false))
                {
                    part.Write(content.Span);
                    Moved?.Invoke(content.Length);
                }
                part.Position = 0;
                right =
                    Convert.ToHexStringLower(await SHA256.HashDataAsync(part, Stop).ConfigureAwait(false)) == file.Hash;
                if (right)
                    part.Flush(flushToDisk: true);
                else
                    part.SetLength(0);
            }
            if (right)
            {
                File.Move(target + ".part", target, overwrite: true);
                return;
            }
            // What was here from before may have been the wrong part: once more from the beginning.
        }
        throw new TrackingException(
            $"The content of {file.Path} was changed in the storage account ({location}, "
                + $"{ContentBlob(file.Hash).Name})."
        )
        {
            Next = $"send it again from where it is whole: dotnet memopt artifacts sync {artifact[..12]}",
        };
    }

    /// <summary>A file for this process alone; waits for another one that downloads the same.</summary>
    private async Task<FileStream> OpenAloneAsync(string path)
    {
        var end = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        while (true)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (File.Exists(path) && Environment.TickCount64 < end)
            {
                await Task.Delay(200, Stop).ConfigureAwait(false);
            }
        }
    }

    private async Task<string> HashAsync(ArtifactFile file)
    {
        using var whole = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await foreach (var content in RangesAsync(file, 0).ConfigureAwait(false))
            whole.AppendData(content.Span);
        return Convert.ToHexStringLower(whole.GetHashAndReset());
    }

    /// <summary>Content from a byte on, in order, a few ranges asked for ahead.</summary>
    private async IAsyncEnumerable<ReadOnlyMemory<byte>> RangesAsync(ArtifactFile file, long from)
    {
        var flying = new Queue<Task<ReadOnlyMemory<byte>>>();
        var at = from;
        while (at < file.Bytes || flying.Count > 0)
        {
            while (at < file.Bytes && flying.Count < parallel)
            {
                var length = Math.Min(BlockBytes, file.Bytes - at);
                flying.Enqueue(RangeAsync(file.Hash, at, length));
                at += length;
            }
            yield return await flying.Dequeue().ConfigureAwait(false);
        }
    }

    private async Task<ReadOnlyMemory<byte>> RangeAsync(string hash, long at, long length)
    {
        var answer = await RetryAsync(stop =>
                ContentBlob(hash)
                    .DownloadContentAsync(
                        new BlobDownloadOptions { Range = new HttpRange(at, length), TransferValidation = checkedDown },
                        stop
                    )
            )
            .ConfigureAwait(false);
        var content = answer.Value.Content.ToMemory();
        return content.Length == length
            ? content
            : throw new TrackingException($"{location}: {ContentBlob(hash).Name} is shorter than it was.");
    }

    private async Task<Manifest> ManifestAsync(string hash)
    {
        if (!Manifest.IsHash(hash))
            throw new TrackingException($"\"{hash}\" is no artifact's hash.") { Failed = false };
        try
        {
            var answer = await RetryAsync(stop => ManifestBlob(hash).DownloadContentAsync(stop)).ConfigureAwait(false);
            return Manifest.Read(answer.Value.Content.ToArray(), hash, $"{location}, {ManifestBlob(hash).Name}");
        }
        catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
        {
            throw new TrackingException($"There is no artifact {hash} in {location}.", e) { Failed = false };
        }
    }

    private async Task<BlobProperties?> FindAsync(BlockBlobClient blob)
    {
        try
        {
            return (
                await RetryAsync(stop => blob.GetPropertiesAsync(cancellationToken: stop)).ConfigureAwait(false)
            ).Value;
        }
        catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
        {
            return null;
        }
    }

    private bool Wrong(BlobProperties found, ArtifactFile file) =>
        found.ContentLength != file.Bytes || !found.Metadata.TryGetValue(sha256, out var hash) || hash != file.Hash
            ? throw new TrackingException($"{location}: under {ContentBlob(file.Hash).Name} lies something else.")
            {
                Next = "delete that blob, then: dotnet memopt artifacts sync",
            }
            : false;

    private string Name(string path) => location.Path.Length > 0 ? location.Path + "/" + path : path;

    private BlockBlobClient ContentBlob(string hash) =>
        container.GetBlockBlobClient(Name($"objects/{hash[..2]}/{hash}"));

    private BlockBlobClient ManifestBlob(string hash) => container.GetBlockBlobClient(Name("manifests/" + hash));

    private static BlobRequestConditions OnlyNew() => new() { IfNoneMatch = ETag.All };

    private static Dictionary<string, string> Sha(string hash) => new() { [sha256] = hash };

    private static bool IsThere(RequestFailedException e) =>
        e.Status is 409 or 412
        && (e.ErrorCode == BlobErrorCode.BlobAlreadyExists || e.ErrorCode == BlobErrorCode.ConditionNotMet);

    /// <summary>Whether the same request may well succeed in a moment: the network, a busy or restarting server, bytes
    /// damaged on the way.</summary>
    private static bool Passing(Exception e) =>
        e switch
        {
            RequestFailedException failed => BlobLocation.IsTransient(failed),
            AuthenticationFailedException => false,
            _ => e is IOException or HttpRequestException or InvalidDataException or OperationCanceledException,
        };

    private Task<T> RetryAsync<T>(Func<CancellationToken, Task<T>> request) =>
        retry.ExecuteAsync(async stop => await request(stop).ConfigureAwait(false), Stop).AsTask();

    private T Guard<T>(Func<Task<T>> action)
    {
        try
        {
            // Callers are synchronous, and no context waits for them.
            var result = Task.Run(action).GetAwaiter().GetResult();
            reached = true;
            return result;
        }
        catch (OperationCanceledException) when (Stop.IsCancellationRequested)
        {
            throw;
        }
        catch (Exception e)
            when (e
                    is RequestFailedException
                        or AuthenticationFailedException
                        or IOException
                        or HttpRequestException
                        or UnauthorizedAccessException
                        or InvalidDataException
                        or OperationCanceledException
            )
        {
            throw location.Fault(e, reached);
        }
    }
}
