using System.Security.Cryptography;
using Azure;
using Azure.Storage;
using Azure.Storage.Blobs.Models;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>Reads content in a storage account, and downloads it into a local store.</summary>
internal sealed class BlobDownload(BlobFolder folder, LocalArtifacts local, BlobTransfer transfer)
{
    private static readonly TimeSpan patience = TimeSpan.FromMinutes(10);

    // The client checks each range by MD5; the whole is checked by sha256.
    private static readonly DownloadTransferValidationOptions validation = new()
    {
        ChecksumAlgorithm = StorageChecksumAlgorithm.MD5,
        AutoValidateChecksum = true,
    };

    /// <summary>Content into the local store: a part file that grows range by range, renamed when its hash is
    /// right.</summary>
    /// <param name="file">The content.</param>
    /// <param name="artifact">For the message.</param>
    public async Task RunAsync(ArtifactFile file, string artifact)
    {
        var target = local.Object(file.Hash);
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        var resumed = true;
        while (resumed)
        {
            (var right, resumed) = await FillAsync(file, target + ".part").ConfigureAwait(false);
            if (right)
            {
                File.Move(target + ".part", target, overwrite: true);
                return;
            }
            // What was here from before may have been the wrong part: once more from the beginning.
        }
        throw new TrackingException(
            $"The content of {file.Path} was changed in the storage account ({folder.Location}, "
                + $"{folder.ContentBlob(file.Hash).Name})."
        )
        {
            Next = $"send it again from where it is whole: dotnet memopt artifacts sync {artifact[..12]}",
        };
    }

    /// <summary>The sha256 of content that is in the account.</summary>
    public async Task<string> HashAsync(ArtifactFile file)
    {
        using var whole = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await foreach (var content in RangesAsync(file, 0).ConfigureAwait(false))
            whole.AppendData(content.Span);
        return Convert.ToHexStringLower(whole.GetHashAndReset());
    }

    /// <summary>Completes a part file, or empties it when its hash is wrong.</summary>
    private async Task<(bool Right, bool Resumed)> FillAsync(ArtifactFile file, string path)
    {
        // For this process alone: another one that downloads the same waits.
        using var part = await FileLock
            .TakeAsync(path, patience, TimeProvider.System, waiting: null, folder.Stop)
            .ConfigureAwait(false);
        if (part.Length > file.Bytes)
            part.SetLength(0);
        var resumed = part.Length > 0;
        part.Position = part.Length;
        await foreach (var content in RangesAsync(file, part.Length).ConfigureAwait(false))
        {
            part.Write(content.Span);
            transfer.Moved?.Invoke(content.Length);
        }
        part.Position = 0;
        var right =
            Convert.ToHexStringLower(await SHA256.HashDataAsync(part, folder.Stop).ConfigureAwait(false)) == file.Hash;
        if (right)
            part.Flush(flushToDisk: true);
        else
            part.SetLength(0);
        return (right, resumed);
    }

    /// <summary>Content from a byte on, in order, a few ranges asked for ahead.</summary>
    private async IAsyncEnumerable<ReadOnlyMemory<byte>> RangesAsync(ArtifactFile file, long from)
    {
        var flying = new Queue<Task<ReadOnlyMemory<byte>>>();
        var at = from;
        while (at < file.Bytes || flying.Count > 0)
        {
            while (at < file.Bytes && flying.Count < BlobTransfer.AtOnce)
            {
                var length = Math.Min(transfer.BlockBytes, file.Bytes - at);
                flying.Enqueue(RangeAsync(file.Hash, at, length));
                at += length;
            }
            yield return await flying.Dequeue().ConfigureAwait(false);
        }
    }

    private async Task<ReadOnlyMemory<byte>> RangeAsync(string hash, long at, long length)
    {
        var answer = await folder
            .RetryAsync(stop =>
                folder
                    .ContentBlob(hash)
                    .DownloadContentAsync(
                        new BlobDownloadOptions { Range = new HttpRange(at, length), TransferValidation = validation },
                        stop
                    )
            )
            .ConfigureAwait(false);
        var content = answer.Value.Content.ToMemory();
        return content.Length == length
            ? content
            : throw new TrackingException(
                $"{folder.Location}: {folder.ContentBlob(hash).Name} is shorter than it was."
            );
    }
}
