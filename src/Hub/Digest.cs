using System.Security.Cryptography;
using System.Text;

namespace Memopt.Hub;

/// <summary>A hash that a server promises: sha256, git's sha1 of a blob, or Azure's md5.</summary>
internal sealed record Digest(string Algorithm, string Hex)
{
    public override string ToString() => $"{Algorithm}:{Hex}";

    /// <summary>What a blob of Hugging Face's cache must hash to, by its name.</summary>
    public static Digest? OfBlobName(string name) =>
        !name.All(char.IsAsciiHexDigitLower)
            ? null
            : name.Length switch
            {
                64 => new("sha256", name),
                40 => new("git-sha1", name),
                _ => null,
            };

    public static Task<Digest> ComputeAsync(string algorithm, string file, CancellationToken stop)
    {
        var size = new FileInfo(file).Length;
        return FollowAsync(algorithm, file, size, () => size, TimeProvider.System, stop);
    }

    /// <summary>Hashes a file while it grows, so that little is left to do when its last byte arrives.</summary>
    /// <param name="algorithm">Of the digest.</param>
    /// <param name="file">The file.</param>
    /// <param name="size">Bytes to hash.</param>
    /// <param name="ready">How many bytes from the start are there by now.</param>
    /// <param name="clock">Time between looks.</param>
    /// <param name="stop">Gives up.</param>
    public static async Task<Digest> FollowAsync(
        string algorithm,
        string file,
        long size,
        Func<long> ready,
        TimeProvider clock,
        CancellationToken stop
    )
    {
        using var handle = File.OpenHandle(
            file,
            FileMode.Open,
            FileAccess.Read,
            FileShare.ReadWrite | FileShare.Delete
        );
        using var hash = IncrementalHash.CreateHash(
            algorithm switch
            {
                "sha256" => HashAlgorithmName.SHA256,
                "git-sha1" => HashAlgorithmName.SHA1,
                _ => HashAlgorithmName.MD5,
            }
        );
        if (algorithm == "git-sha1")
            hash.AppendData(Encoding.ASCII.GetBytes($"blob {size}\0"));
        var buffer = new byte[256 << 10];
        long at = 0,
            end;
        while (at < size)
        {
            stop.ThrowIfCancellationRequested();
            if ((end = ready()) == at)
                await Task.Delay(TimeSpan.FromMilliseconds(5), clock, stop).ConfigureAwait(false);
            while (at < end)
            {
                stop.ThrowIfCancellationRequested();
                var count = RandomAccess.Read(handle, buffer.AsSpan(0, (int)Math.Min(buffer.Length, end - at)), at);
                if (count == 0)
                    throw new EndOfStreamException($"{file} ends at byte {at} of {size}");
                hash.AppendData(buffer, 0, count);
                at += count;
            }
        }
        return new(algorithm, Convert.ToHexStringLower(hash.GetHashAndReset()));
    }
}
