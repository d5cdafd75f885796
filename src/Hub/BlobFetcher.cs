using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Fetches one file into the cache, resumes a previous download, and checks the hash.</summary>
internal sealed class BlobFetcher(Downloader downloader, HubSettings settings, TimeProvider clock)
{
    /// <summary>Fetches a file: it is whole in the cache under its name when this returns.</summary>
    public async Task<FetchedBytes> FetchAsync(FetchTarget target, RemoteFile file, CancellationToken stop)
    {
        var (cache, watcher) = (target.Cache, target.Watcher);
        var blob = cache.Blob(file.Blob);
        var known = file.Resumable || file.Hash is not null; // else nothing says that it is still the same
        if (known && new FileInfo(blob) is { Exists: true } whole && whole.Length == file.Size)
        {
            // Without the lock: a cache that may only be read will do.
            watcher.Advance(file.Path, file.Size, file.Size, file.Size);
            cache.Link(target.Commit, file);
            return default;
        }
        Directory.CreateDirectory(Path.GetDirectoryName(blob)!);
        var bytes = default(FetchedBytes);
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
            if (new FileInfo(blob) is { Exists: true } old && (old.Length != file.Size || !known))
                File.Delete(blob); // cut short by something else
            for (var again = false; !File.Exists(blob); again = true)
                bytes += await TryAsync(target, file, again, stop).ConfigureAwait(false);
        }
        watcher.Advance(file.Path, file.Size, file.Size, file.Size - Math.Min(bytes.Fetched, file.Size));
        cache.Link(target.Commit, file);
        return bytes;
    }

    /// <summary>Downloads the blob once. It is in its place after this, unless its bytes are wrong; wrong
    /// <paramref name="again"/> is a fault.</summary>
    private async Task<FetchedBytes> TryAsync(FetchTarget target, RemoteFile file, bool again, CancellationToken stop)
    {
        var (hash, bytes) = await DownloadAsync(target, file, stop).ConfigureAwait(false);
        if (file.Hash is null || hash == file.Hash)
        {
            await KeepAsync(target.Cache, file, hash, stop).ConfigureAwait(false);
            return bytes;
        }
        // Nothing tells which bytes are wrong, so all of them go.
        File.Delete(target.Cache.Part(file.Blob));
        target.Watcher.Note($"{file.Path}: the bytes are not those that the hub promises; fetching it again");
        return !again
            ? bytes
            : throw new UserFault(
                $"{file.Path} arrives damaged.",
                found: $"{hash}, the hub says {file.Hash}",
                next: "try another network or mirror (HF_ENDPOINT)"
            )
            {
                Failed = true,
            };
    }

    /// <summary>Completes the part file and hashes it, as far as it goes while it grows.</summary>
    private async Task<(Digest Hash, FetchedBytes Bytes)> DownloadAsync(
        FetchTarget target,
        RemoteFile file,
        CancellationToken stop
    )
    {
        var (path, watcher) = (target.Cache.Part(file.Blob), target.Watcher);
        using var part = PartFile.Open(
            path,
            file.Blob,
            file.Size,
            file.Resumable ? settings.PartBytes : Math.Max(1, file.Size)
        );
        using var failed = CancellationTokenSource.CreateLinkedTokenSource(stop);
        var resumed = part.Resumed;
        watcher.Advance(file.Path, resumed, file.Size, resumed);
        var hashing = Task.Run(() => HashAsync(file, part, path, failed.Token), CancellationToken.None);
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
        var hash = await hashing.ConfigureAwait(false);
        part.Finish();
        return (hash, new(part.DoneBytes - resumed, resumed));
    }

    // Bytes that cannot be resumed are written over by another attempt: those are hashed at the end.
    private Task<Digest> HashAsync(RemoteFile file, PartFile part, string path, CancellationToken stop) =>
        Digest.FollowAsync(
            file.Hash?.Algorithm ?? "sha256",
            path,
            file.Size,
            () => file.Resumable || part.Prefix == file.Size ? part.Prefix : 0,
            clock,
            stop
        );

    /// <summary>Moves a part file that is whole to its place.</summary>
    private static async Task KeepAsync(ModelCache cache, RemoteFile file, Digest hash, CancellationToken stop)
    {
        var path = cache.Part(file.Blob);
        if (Digest.OfBlobName(file.Blob) is null)
            cache.Note(
                file.Blob,
                hash.Algorithm == "sha256"
                    ? hash
                    : await Digest.ComputeAsync("sha256", path, stop).ConfigureAwait(false)
            );
        File.Move(path, cache.Blob(file.Blob), overwrite: true);
    }
}
