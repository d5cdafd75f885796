using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Memopt.Core;

namespace Memopt.Trainer.Data;

/// <summary>The tokens of a chunk as one run of bytes, in memory or in a file: a head, columns of numbers about the
/// rows, and behind them the rows. A file is opened for each read and not mapped: mapped pages would count as memory of
/// the run, which its meter reads, and thousands of shards need no open file each.
/// </summary>
internal sealed class TokenShard
{
    private const ulong Magic = 0x32306b6f74706d6d; // "mmptok02"
    private readonly byte[]? memory;
    private readonly string? file;

    private TokenShard(byte[]? memory, string? file, ShardHeader head) =>
        (this.memory, this.file, Counts, Rows) = (memory, file, head.Counts, (int)head.Counts.Rows);

    /// <summary>Bytes that stand for a shard.</summary>
    public static TokenShard Of(byte[] bytes) => new(bytes, null, MemoryMarshal.Read<ShardHeader>(bytes));

    /// <summary>A shard's file; null when it is not there or not whole.</summary>
    public static TokenShard? Open(string path)
    {
        Span<byte> bytes = stackalloc byte[Unsafe.SizeOf<ShardHeader>()];
        try
        {
            using var handle = File.OpenHandle(path);
            if (RandomAccess.Read(handle, bytes, 0) < bytes.Length)
                return null;
            var head = MemoryMarshal.Read<ShardHeader>(bytes);
            return head.Magic == Magic && head.Length == RandomAccess.GetLength(handle) ? new(null, path, head) : null;
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    public DataCounts Counts { get; }

    public int Rows { get; }

    /// <summary>Line of the chunk's first row in its file.</summary>
    public int FirstLine { get; private init; } = 1;

    /// <summary>The file of rows that it was made of.</summary>
    public string Source { get; private init; } = "";

    /// <summary>The same shard for a chunk that begins at a line of a file.</summary>
    public TokenShard At(int firstLine, string source) =>
        new(memory, file, new ShardHeader(Magic, 0, Counts)) { FirstLine = firstLine, Source = source };

    private long LengthsAt => Unsafe.SizeOf<ShardHeader>();
    private long TrainedAt => LengthsAt + 4L * Rows;
    private long OffsetsAt => TrainedAt + 4L * Rows;
    private long LinesAt => OffsetsAt + 4L * (Rows + 1);
    private long HashesAt => LinesAt + 4L * Rows;
    private long PartsAt => HashesAt + 8L * Rows;
    private long RowsAt => PartsAt + Rows;

    /// <summary>Tokens of each row.</summary>
    public void Lengths(Span<int> into) => Read(LengthsAt, MemoryMarshal.AsBytes(into));

    /// <summary>Tokens of each row that carry loss.</summary>
    public void TargetCounts(Span<int> into) => Read(TrainedAt, MemoryMarshal.AsBytes(into));

    /// <summary>For each row the hash of the content of the row that it was made of.</summary>
    public void Hashes(Span<ulong> into) => Read(HashesAt, MemoryMarshal.AsBytes(into));

    /// <summary>For each row which part it is of the row that it was made of, from 0 (255 and on as 255).</summary>
    public void Parts(Span<byte> into) => Read(PartsAt, into);

    public Row this[int row]
    {
        get
        {
            try
            {
                return memory is not null ? Decode(memory, row) : Stored(row);
            }
            catch (Exception e) when (e is OverflowException or ArgumentException or IndexOutOfRangeException)
            {
                throw new UserFault(
                    $"The cached tokens in {file ?? "memory"} are damaged.",
                    found: $"row {row}: {e.Message.Split('\n')[0]}",
                    next: "remove that file; the rows are tokenized again",
                    inner: e
                );
            }
        }
    }

    private Row Stored(int row)
    {
        Span<int> place = stackalloc int[2];
        Span<int> line = stackalloc int[1];
        using var handle = File.OpenHandle(file!);
        Read(handle, OffsetsAt + 4L * row, MemoryMarshal.AsBytes(place));
        Read(handle, LinesAt + 4L * row, MemoryMarshal.AsBytes(line));
        if (place[1] - place[0] > RandomAccess.GetLength(handle))
            throw new OverflowException("a row is longer than the file");
        var bytes = new byte[place[1] - place[0]];
        Read(handle, RowsAt + place[0], bytes);
        return RowCode.Decode(bytes, FirstLine + line[0]);
    }

    private Row Decode(ReadOnlySpan<byte> all, int row)
    {
        var place = MemoryMarshal.Cast<byte, int>(all.Slice((int)OffsetsAt + 4 * row, 8));
        var line = MemoryMarshal.Read<int>(all[((int)LinesAt + 4 * row)..]);
        return RowCode.Decode(all.Slice((int)RowsAt + place[0], place[1] - place[0]), FirstLine + line);
    }

    private void Read(long at, Span<byte> into)
    {
        if (memory is not null)
        {
            memory.AsSpan((int)at, into.Length).CopyTo(into);
            return;
        }
        using var handle = File.OpenHandle(file!);
        Read(handle, at, into);
    }

    private void Read(Microsoft.Win32.SafeHandles.SafeFileHandle handle, long at, Span<byte> into)
    {
        while (into.Length > 0)
        {
            var count = RandomAccess.Read(handle, into, at);
            if (count == 0)
                throw new UserFault(
                    $"{file} has been cut short.",
                    next: "remove it and run again; its rows are tokenized anew"
                )
                {
                    Failed = true,
                };
            at += count;
            into = into[count..];
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct ShardHeader(ulong Magic, long Length, DataCounts Counts);

    /// <summary>Gathers rows into a shard's bytes.</summary>
    internal sealed class Builder
    {
        private readonly ArrayBufferWriter<byte> rows = new(1 << 16);
        private readonly List<int> lengths = [],
            trained = [],
            offsets = [0],
            lines = [];
        private readonly List<ulong> hashes = [];
        private readonly List<byte> parts = [];
        private DataCounts counts;

        public void Add(Row row, int line, ulong hash, int part)
        {
            RowCode.Encode(row, rows);
            var loss = row.TargetCount;
            lengths.Add(row.Ids.Length);
            trained.Add(loss);
            offsets.Add(rows.WrittenCount);
            lines.Add(line);
            hashes.Add(hash);
            parts.Add((byte)Math.Min(part, 255));
            counts += new DataCounts(
                1,
                row.Ids.Length,
                loss,
                0,
                0,
                0,
                0,
                row.Ids.Length,
                Math.Max(row.Ids.Max(), row.Labels.Max())
            );
        }

        /// <summary>Counts what happened to rows beside becoming sequences.</summary>
        public void Count(int truncated = 0, int dropped = 0, int split = 0, int rejected = 0) =>
            counts += new DataCounts(0, 0, 0, truncated, dropped, split, rejected, 0, 0);

        public byte[] ToArray()
        {
            var n = lengths.Count;
            var size = Unsafe.SizeOf<ShardHeader>() + 4L * n * 3 + 4L * (n + 1) + 9L * n + rows.WrittenCount;
            var bytes = new byte[checked((int)size)];
            var head = new ShardHeader(Magic, size, counts);
            MemoryMarshal.Write(bytes, in head);
            var rest = bytes.AsSpan(Unsafe.SizeOf<ShardHeader>());
            foreach (var column in new[] { lengths, trained, offsets, lines })
                rest = Put(rest, MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(column)));
            rest = Put(rest, MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(hashes)));
            rest = Put(rest, CollectionsMarshal.AsSpan(parts));
            Put(rest, rows.WrittenSpan);
            return bytes;
        }

        private static Span<byte> Put(Span<byte> into, ReadOnlySpan<byte> what)
        {
            what.CopyTo(into);
            return into[what.Length..];
        }
    }
}
