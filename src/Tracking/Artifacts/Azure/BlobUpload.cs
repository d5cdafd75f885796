using System.Buffers;
using System.Buffers.Binary;
using System.Security.Cryptography;
using Azure;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;

namespace Memopt.Tracking;

/// <summary>Sends files to a storage account, block by block.</summary>
internal sealed class BlobUpload(BlobFolder folder, BlobDownload download, BlobTransfer transfer)
{
    private const int mostBlocks = 50_000;

    private long blocks,
        bytes;

    /// <summary>What was sent so far.</summary>
    public Sent Sent => new(Interlocked.Read(ref blocks), Interlocked.Read(ref bytes));

    /// <summary>Whether content that is there is read, and replaced where it was changed.</summary>
    public bool Repair { get; init; }

    private sealed record Block(string Id, byte[] Buffer, int Length);

    /// <summary>Sends what is not there of a file.</summary>
    /// <param name="file">The content.</param>
    /// <param name="source">Where it lies here.</param>
    public async Task RunAsync(ArtifactFile file, string source)
    {
        var blob = folder.ContentBlob(file.Hash);
        for (var again = 0; ; again++)
        {
            var found = await folder.FindAsync(blob).ConfigureAwait(false);
            var damaged = found is not null && Repair && await IsDamagedAsync(found, file).ConfigureAwait(false);
            if (found is not null && !damaged)
            {
                folder.CheckContent(found, file);
                return;
            }
            var ids = await StageAsync(blob, file, source).ConfigureAwait(false);
            // What is damaged is replaced as long as it is still that version.
            var conditions = damaged ? new BlobRequestConditions { IfMatch = found!.ETag } : BlobFolder.OnlyNew;
            try
            {
                await folder
                    .RetryAsync(stop =>
                        blob.CommitBlockListAsync(
                            ids,
                            new CommitBlockListOptions
                            {
                                Conditions = conditions,
                                Metadata = BlobFolder.Metadata(file.Hash),
                            },
                            stop
                        )
                    )
                    .ConfigureAwait(false);
                return;
            }
            catch (RequestFailedException e)
                when (BlobFolder.IsThere(e) || (e.ErrorCode == BlobErrorCode.InvalidBlockList && again < 5))
            {
                // Another client, or this one's commit whose answer was lost, was first; or the server lost blocks,
                // which are sent again.
            }
        }
    }

    private async Task<bool> IsDamagedAsync(BlobProperties found, ArtifactFile file) =>
        found.ContentLength != file.Bytes || await download.HashAsync(file).ConfigureAwait(false) != file.Hash;

    /// <summary>Sends the blocks that are not there, and returns the names of all.</summary>
    private async Task<List<string>> StageAsync(BlockBlobClient blob, ArtifactFile file, string source)
    {
        // Blocks are named by place and content, so those that a previous attempt left prove themselves.
        var there = await UncommittedAsync(blob).ConfigureAwait(false);
        var ids = new List<string>();
        await Parallel
            .ForEachAsync(
                Blocks(file, source, there, ids),
                new ParallelOptions { MaxDegreeOfParallelism = BlobTransfer.AtOnce, CancellationToken = folder.Stop },
                async (block, stop) => await StageAsync(blob, block, stop).ConfigureAwait(false)
            )
            .ConfigureAwait(false);
        return ids;
    }

    private async Task StageAsync(BlockBlobClient blob, Block block, CancellationToken stop)
    {
        try
        {
            await folder
                .RetryAsync(
                    token =>
                        blob.StageBlockAsync(
                            block.Id,
                            new MemoryStream(block.Buffer, 0, block.Length),
                            new BlockBlobStageBlockOptions { TransferValidation = BlobFolder.CheckedUpload },
                            token
                        ),
                    stop
                )
                .ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(block.Buffer);
        }
        Interlocked.Increment(ref blocks);
        Interlocked.Add(ref bytes, block.Length);
        transfer.Moved?.Invoke(block.Length);
    }

    /// <summary>A file's blocks that are not there yet, read in order; <paramref name="ids"/> gets the names of all.
    /// The end is reached only if the whole is what its hash says.</summary>
    private IEnumerable<Block> Blocks(ArtifactFile file, string path, HashSet<string> there, List<string> ids)
    {
        var size = (int)Math.Max(transfer.BlockBytes, (file.Bytes + mostBlocks - 1) / mostBlocks);
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
                yield return new(ids[^1], buffer, length);
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
            var list = await folder
                .RetryAsync(stop => blob.GetBlockListAsync(BlockListTypes.Uncommitted, cancellationToken: stop))
                .ConfigureAwait(false);
            return [.. list.Value.UncommittedBlocks.Select(block => block.Name)];
        }
        catch (RequestFailedException e) when (e.ErrorCode == BlobErrorCode.BlobNotFound)
        {
            return [];
        }
    }
}
