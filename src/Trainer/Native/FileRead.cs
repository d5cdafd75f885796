using Microsoft.Win32.SafeHandles;

namespace Memopt.Trainer.Native;

/// <summary>Reads of a file to an address, parts side by side: one thread does not keep up with a fast disk, nor with
/// the page cache.</summary>
internal static unsafe class FileRead
{
    private const int PartBytes = 4 << 20,
        Readers = 4;

    /// <param name="file">To read from.</param>
    /// <param name="offset">In the file.</param>
    /// <param name="count">Bytes.</param>
    /// <param name="to">Where they go.</param>
    /// <param name="name">Of the file and what is read, for the error when it has become too short.</param>
    public static void Into(SafeFileHandle file, long offset, long count, nint to, string name) =>
        Parallel.For(
            0,
            (count + PartBytes - 1) / PartBytes,
            new ParallelOptions { MaxDegreeOfParallelism = Readers },
            part =>
            {
                var end = Math.Min(count, (part + 1) * PartBytes);
                var at = part * PartBytes;
                while (at < end)
                {
                    var read = RandomAccess.Read(file, new Span<byte>((byte*)to + at, (int)(end - at)), offset + at);
                    at += read > 0 ? read : throw new EndOfStreamException($"{name} was cut short while it was read.");
                }
            }
        );
}
