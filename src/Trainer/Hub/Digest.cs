using System.Security.Cryptography;
using System.Text;

namespace Memopt.Trainer.Hub;

/// <summary>A hash that a server promises: sha256, git's sha1 of a blob, or Azure's md5.</summary>
internal sealed record Digest(string Algorithm, string Hex)
{
    public override string ToString() => $"{Algorithm}:{Hex}";

    /// <summary>What a blob of Hugging Face's cache must hash to, by its name.</summary>
    public static Digest? OfBlobName(string name) => !name.All(char.IsAsciiHexDigitLower) ? null : name.Length switch
    {
        64 => new("sha256", name),
        40 => new("git-sha1", name),
        _ => null,
    };

    public static async Task<Digest> ComputeAsync(string algorithm, string file, CancellationToken stop)
    {
        using var handle = File.OpenHandle(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, FileOptions.SequentialScan);
        var size = RandomAccess.GetLength(handle);
        using var hash = IncrementalHash.CreateHash(algorithm switch
        {
            "sha256" => HashAlgorithmName.SHA256,
            "git-sha1" => HashAlgorithmName.SHA1,
            _ => HashAlgorithmName.MD5,
        });
        if (algorithm == "git-sha1")
            hash.AppendData(Encoding.ASCII.GetBytes($"blob {size}\0"));
        var buffer = new byte[256 << 10];
        for (long at = 0; at < size;)
        {
            stop.ThrowIfCancellationRequested();
            var count = await RandomAccess.ReadAsync(handle, buffer, at, stop).ConfigureAwait(false);
            hash.AppendData(buffer, 0, count);
            at += count;
        }
        return new(algorithm, Convert.ToHexStringLower(hash.GetHashAndReset()));
    }
}
