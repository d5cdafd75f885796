using Azure;
using Azure.Identity;
using Azure.Storage;
using Azure.Storage.Blobs;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;
using Polly;
using Polly.Retry;

namespace Memopt.Tracking;

/// <summary>The folder of a storage account: its blobs by name, and requests that are tried again.</summary>
internal sealed class BlobFolder
{
    private const string sha256 = "sha256";

    private readonly BlobContainerClient container;
    private readonly ResiliencePipeline retry;
    private bool reached;

    /// <param name="location">Where it is.</param>
    /// <param name="attempts">Of each request. Waits double from half a second to 20 seconds, with jitter.</param>
    public BlobFolder(BlobLocation location, int attempts)
    {
        (Location, container) = (location, location.Connect());
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
                        !Stop.IsCancellationRequested && BlobFault.IsTransient(e)
                    ),
                }
            )
            .Build();
    }

    /// <summary>Has the service check each block by MD5; the whole is checked by sha256.</summary>
    public static UploadTransferValidationOptions CheckedUpload { get; } =
        new() { ChecksumAlgorithm = StorageChecksumAlgorithm.MD5 };

    /// <summary>Nothing may be there yet.</summary>
    public static BlobRequestConditions OnlyNew => new() { IfNoneMatch = ETag.All };

    public BlobLocation Location { get; }

    /// <summary>Ends requests.</summary>
    public CancellationToken Stop { get; set; }

    public BlockBlobClient ContentBlob(string hash) =>
        container.GetBlockBlobClient(Name($"objects/{hash[..2]}/{hash}"));

    public BlockBlobClient ManifestBlob(string hash) => container.GetBlockBlobClient(Name("manifests/" + hash));

    /// <summary>A path in the folder as a name in the container.</summary>
    public string Name(string path) => Location.Path.Length > 0 ? Location.Path + "/" + path : path;

    /// <summary>What a blob says of its content.</summary>
    public static Dictionary<string, string> Metadata(string hash) => new() { [sha256] = hash };

    /// <summary>Throws when a blob that is there says that its content is another file.</summary>
    public void CheckContent(BlobProperties found, ArtifactFile file)
    {
        if (found.ContentLength != file.Bytes || !found.Metadata.TryGetValue(sha256, out var hash) || hash != file.Hash)
            throw new TrackingException($"{Location}: under {ContentBlob(file.Hash).Name} lies something else.")
            {
                Next = "delete that blob, then: dotnet memopt artifacts sync",
            };
    }

    /// <summary>Properties of a blob; null when it is not there.</summary>
    public async Task<BlobProperties?> FindAsync(BlockBlobClient blob)
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

    public async Task<Manifest> ReadManifestAsync(string hash)
    {
        if (!Manifest.IsHash(hash))
            throw new TrackingException($"\"{hash}\" is no artifact's hash.") { Failed = false };
        try
        {
            var answer = await RetryAsync(stop => ManifestBlob(hash).DownloadContentAsync(stop)).ConfigureAwait(false);
            return Manifest.Read(answer.Value.Content.ToArray(), hash, $"{Location}, {ManifestBlob(hash).Name}");
        }
        catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
        {
            throw new TrackingException($"There is no artifact {hash} in {Location}.", e) { Failed = false };
        }
    }

    /// <summary>Stores a manifest, unless it is there.</summary>
    public async Task WriteManifestAsync(Manifest manifest)
    {
        var blob = ManifestBlob(manifest.Hash);
        if (await FindAsync(blob).ConfigureAwait(false) is not null)
            return;
        try
        {
            await RetryAsync(stop =>
                    blob.UploadAsync(
                        new MemoryStream(manifest.Content),
                        new BlobUploadOptions
                        {
                            Conditions = OnlyNew,
                            Metadata = Metadata(manifest.Hash),
                            TransferValidation = CheckedUpload,
                        },
                        stop
                    )
                )
                .ConfigureAwait(false);
        }
        catch (RequestFailedException e) when (IsThere(e))
        {
            await ReadManifestAsync(manifest.Hash).ConfigureAwait(false); // throws when it is another
        }
    }

    /// <summary>Names of what lies under a path.</summary>
    public Task<List<string>> ListAsync(string path)
    {
        var beginning = Name(path);
        return RetryAsync(async stop =>
        {
            var found = new List<string>();
            await foreach (
                var blob in container
                    .GetBlobsAsync(new GetBlobsOptions { Prefix = beginning }, stop)
                    .ConfigureAwait(false)
            )
                found.Add(blob.Name[beginning.Length..]);
            return found;
        });
    }

    /// <summary>A small file and the tag of its present version; nulls when it is not there.</summary>
    public async Task<(byte[]? Content, string? Tag)> ReadAsync(string path)
    {
        try
        {
            var answer = await RetryAsync(stop => container.GetBlobClient(Name(path)).DownloadContentAsync(stop))
                .ConfigureAwait(false);
            return (answer.Value.Content.ToArray(), answer.Value.Details.ETag.ToString());
        }
        catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
        {
            return (null, null);
        }
    }

    /// <summary>Replaces a small file as long as it is the version of that tag, or with null is not there; false when
    /// somebody else was first.</summary>
    public async Task<bool> WriteAsync(string path, byte[] content, string? tag)
    {
        try
        {
            var conditions = tag is null ? OnlyNew : new() { IfMatch = new ETag(tag) };
            await RetryAsync(stop =>
                    container
                        .GetBlobClient(Name(path))
                        .UploadAsync(
                            new MemoryStream(content),
                            new BlobUploadOptions { Conditions = conditions, TransferValidation = CheckedUpload },
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
    }

    public Task DeleteAsync(BlockBlobClient blob) =>
        RetryAsync(stop => blob.DeleteIfExistsAsync(cancellationToken: stop));

    /// <summary>Tries a request until it succeeds, or has failed too often.</summary>
    public Task<T> RetryAsync<T>(Func<CancellationToken, Task<T>> request) => RetryAsync(request, Stop);

    /// <summary>The same with a stop of its own.</summary>
    public Task<T> RetryAsync<T>(Func<CancellationToken, Task<T>> request, CancellationToken stop) =>
        retry.ExecuteAsync(async token => await request(token).ConfigureAwait(false), stop).AsTask();

    /// <summary>Waits for what is asked of the account, and makes a <see cref="TrackingException"/> of what
    /// failed.</summary>
    public T Guard<T>(Func<Task<T>> action)
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
            throw Location.Fault(e, reached);
        }
    }

    /// <summary>Whether a condition was not met because another client was first.</summary>
    public static bool IsThere(RequestFailedException e) =>
        e.Status is 409 or 412
        && (e.ErrorCode == BlobErrorCode.BlobAlreadyExists || e.ErrorCode == BlobErrorCode.ConditionNotMet);
}
