using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Memopt.Core;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Hub;

/// <summary>A file on its way: its bytes, and behind them what a later process needs to go on, one counter of bytes
/// for each part. Cut to size it is the file. Bytes are written before their counter, so a kill at any instant costs
/// only what was not yet written.
/// </summary>
internal sealed class PartFile : IDisposable
{
    private const int Header = 64;
    private readonly SafeFileHandle handle;
    private readonly long[] done;
    private readonly long partBytes;
    private long sum;

    private PartFile(SafeFileHandle handle, long size, long partBytes, long[] done)
    {
        (this.handle, Size, this.partBytes, this.done, sum) = (handle, size, partBytes, done, done.Sum());
        Resumed = sum;
    }

    public long Size { get; }

    public int Parts => done.Length;

    /// <summary>Bytes that a previous process or attempt left.</summary>
    public long Resumed { get; }

    public long DoneBytes => Interlocked.Read(ref sum);

    public long Start(int part) => part * partBytes;

    public long Length(int part) => Math.Min(partBytes, Size - Start(part));

    public long Done(int part) => Volatile.Read(ref done[part]);

    /// <summary>Bytes from the start without a gap.</summary>
    public long Prefix
    {
        get
        {
            var part = 0;
            while (part < Parts && Done(part) == Length(part))
                part++;
            return part == Parts ? Size : Start(part) + Done(part);
        }
    }

    /// <summary>Opens what is there when it is of the same content, else begins anew.</summary>
    /// <param name="path">The unfinished file.</param>
    /// <param name="identity">Name of the content (ETag); another content never goes on here.</param>
    /// <param name="size">Bytes of the whole.</param>
    /// <param name="partBytes">Size of a part when it begins anew.</param>
    public static PartFile Open(string path, string identity, long size, long partBytes)
    {
        var handle = File.OpenHandle(
            path,
            FileMode.OpenOrCreate,
            FileAccess.ReadWrite,
            FileShare.ReadWrite | FileShare.Delete
        );
        try
        {
            var mark = Mark(identity, size);
            if (Read(handle, mark, size) is { } found)
                return new(handle, size, found.PartBytes, found.Counters);
            RandomAccess.SetLength(handle, 0);
            BinaryPrimitives.WriteInt64LittleEndian(mark.AsSpan(40), partBytes);
            var counters = new long[(size + partBytes - 1) / partBytes];
            RandomAccess.SetLength(handle, size + Header + counters.Length * 8);
            RandomAccess.Write(handle, mark, size);
            return new(handle, size, partBytes, counters);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Bytes that an unfinished file holds already.</summary>
    public static long Stored(string path, string identity, long size)
    {
        if (!File.Exists(path))
            return 0;
        using var handle = File.OpenHandle(
            path,
            FileMode.Open,
            FileAccess.Read,
            FileShare.ReadWrite | FileShare.Delete
        );
        return Read(handle, Mark(identity, size), size)?.Counters.Sum() ?? 0;
    }

    /// <summary>Stores bytes of a part; bytes that are there already are passed over.</summary>
    public void Write(int part, long offset, ReadOnlySpan<byte> bytes)
    {
        try
        {
            RandomAccess.Write(handle, bytes, Start(part) + offset);
            lock (done)
            {
                var end = offset + bytes.Length;
                if (offset > done[part] || end <= done[part])
                    return;
                sum += end - done[part];
                done[part] = end;
                Span<byte> counter = stackalloc byte[8];
                BinaryPrimitives.WriteInt64LittleEndian(counter, end);
                RandomAccess.Write(handle, counter, Size + Header + part * 8L);
            }
        }
        catch (IOException e)
        {
            // Not the network's fault, and asking it again would not help.
            throw new UserFault(
                "The download could not be stored.",
                found: e.Message,
                next: "make room on the disk and run the same command again; it resumes",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }

    /// <summary>Cuts the file to its content and has the disk keep it.</summary>
    public void Finish()
    {
        if (RandomAccess.GetLength(handle) != Size)
            RandomAccess.SetLength(handle, Size);
        RandomAccess.FlushToDisk(handle);
    }

    public void Dispose() => handle.Dispose();

    private static byte[] Mark(string identity, long size)
    {
        var mark = new byte[Header];
        "memopt-1"u8.CopyTo(mark);
        SHA256.HashData(Encoding.UTF8.GetBytes($"{identity}\n{size}"), mark.AsSpan(8));
        return mark;
    }

    private static (long PartBytes, long[] Counters)? Read(SafeFileHandle handle, byte[] mark, long size)
    {
        var length = RandomAccess.GetLength(handle);
        if (length == size && size > 0)
            return (size, [size]); // killed between the cut and the rename
        var head = new byte[Header];
        if (
            length < size + Header
            || RandomAccess.Read(handle, head, size) != Header
            || !head.AsSpan(0, 40).SequenceEqual(mark.AsSpan(0, 40))
        )
            return null;
        var partBytes = BinaryPrimitives.ReadInt64LittleEndian(head.AsSpan(40));
        var counters = new byte[(size + partBytes - 1) / partBytes * 8];
        if (
            length != size + Header + counters.Length
            || RandomAccess.Read(handle, counters, size + Header) != counters.Length
        )
            return null;
        return (
            partBytes,
            [
                .. Enumerable
                    .Range(0, counters.Length / 8)
                    .Select(part => BinaryPrimitives.ReadInt64LittleEndian(counters.AsSpan(part * 8))),
            ]
        );
    }
}
