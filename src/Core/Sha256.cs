using System.Buffers;
using System.Security.Cryptography;
using System.Text;

namespace Memopt.Core;

/// <summary>sha256 as 64 lower-case hex digits.</summary>
internal static class Sha256
{
    private const int BufferBytes = 1 << 17;

    public static string Of(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    /// <summary>Of a text's UTF-8 bytes.</summary>
    public static string OfText(string text) => Of(Encoding.UTF8.GetBytes(text));

    /// <summary>Of a file, read from its first byte to its last.</summary>
    /// <exception cref="IOException">It cannot be read.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public static string OfFile(string path, CancellationToken stop = default)
    {
        using var stream = new FileStream(
            path,
            new FileStreamOptions { Options = FileOptions.SequentialScan, BufferSize = 0 }
        );
        return OfStream(stream, stop);
    }

    /// <summary>Of a stream, from where it is to its end.</summary>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public static string OfStream(Stream stream, CancellationToken stop = default)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        // Rented: checkpoints are hashed where nothing may be collected.
        var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        try
        {
            int count;
            while ((count = stream.Read(buffer)) > 0)
            {
                stop.ThrowIfCancellationRequested();
                hash.AppendData(buffer, 0, count);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
