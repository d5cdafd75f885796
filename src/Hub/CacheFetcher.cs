using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Fetches files of a commit into the cache, several at once.</summary>
internal sealed class CacheFetcher(BlobFetcher blobs)
{
    private const int filesAtOnce = 4;
    private const int readOnlyFileSystem = 30; // EROFS
    private const long spare = 64L << 20;

    /// <summary>Free bytes on the disk of a folder.</summary>
    public Func<string, long> FreeBytes { get; set; } = folder => new DriveInfo(folder).AvailableFreeSpace;

    /// <summary>Fetches files: all are whole in the cache when this returns.</summary>
    public async Task<FetchedBytes> FetchAsync(
        FetchTarget target,
        IReadOnlyList<RemoteFile> files,
        CancellationToken stop
    )
    {
        CheckListed(target.Commit, files);
        try
        {
            CheckSpace(target.Cache, files);
            return await FetchAllAsync(target, files, stop).ConfigureAwait(false);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException { HResult: readOnlyFileSystem })
        {
            throw new UserFault(
                $"The cache {target.Cache.Root} cannot be written.",
                e.Message,
                "set HF_HOME (XDG_CACHE_HOME for what is not from the Hugging Face Hub) to a folder that can be, "
                    + "or fix its rights",
                e
            )
            {
                Failed = true,
            };
        }
    }

    /// <summary>Refuses names and sizes that a server must not list.</summary>
    private static void CheckListed(string commit, IReadOnlyList<RemoteFile> files)
    {
        ModelFiles.SafePart(commit);
        foreach (var file in files)
        {
            ModelFiles.SafePart(file.Blob);
            ModelFiles.CheckSize(file.Path, file.Size);
        }
    }

    private async Task<FetchedBytes> FetchAllAsync(
        FetchTarget target,
        IReadOnlyList<RemoteFile> files,
        CancellationToken stop
    )
    {
        long fetched = 0,
            resumed = 0;
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
                        var (got, had) = await blobs.FetchAsync(target, file, token).ConfigureAwait(false);
                        Interlocked.Add(ref fetched, got);
                        Interlocked.Add(ref resumed, had);
                    }
                }
            )
            .ConfigureAwait(false);
        return new(fetched, resumed);
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
}
