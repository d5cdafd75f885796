using System.Buffers.Binary;
using Memopt.Core;
using Parquet.Meta;

namespace Memopt.Trainer.Data.Formats;

/// <summary>
/// Looks at a Parquet file's metadata and page headers before the library reads them: it has no limits of its own and
/// goes round for ever where metadata ends early. Source: the Parquet format (apache/parquet-format, parquet.thrift).
/// </summary>
internal static class ParquetCheck
{
    private const int LongestFooter = 64 << 20,
        LongestHeader = 1 << 20,
        UsualHeader = 256;

    // What a row group may hold however well it compresses, and how many times its stored bytes it may hold.
    private const long Rows = 1 << 21,
        Values = 1 << 24,
        Bytes = 512 << 20;
    private const int RowsPerByte = 1,
        ValuesPerByte = 8,
        BytesPerByte = 32;

    private static readonly ThriftSchema schema = new(
        ("File", "1:i 2:[Element 3:i 4:[RowGroup 5:[KeyValue 6:b 7:[Order 8:Encryption 9:b"),
        ("Element", "1:i 2:i 3:i 4:b 5:i 6:i 7:i 8:i 9:i 10:Logical"),
        (
            "Logical",
            "1:Empty 2:Empty 3:Empty 4:Empty 5:Decimal 6:Empty 7:Time 8:Time 10:Int 11:Empty 12:Empty 13:Empty "
                + "14:Empty 15:Empty 16:Variant 17:Geometry 18:Geography"
        ),
        ("Empty", ""),
        ("Decimal", "1:i 2:i"),
        ("Time", "1:t 2:Unit"),
        ("Unit", "1:Empty 2:Empty 3:Empty"),
        ("Int", "1:y 2:t"),
        ("Variant", "1:y"),
        ("Geometry", "1:b"),
        ("Geography", "1:b 2:i"),
        ("KeyValue", "1:b 2:b"),
        ("Order", "1:Empty"),
        ("Encryption", "1:Aes 2:Aes"),
        ("Aes", "1:b 2:b 3:t"),
        ("RowGroup", "1:[Column 2:i 3:i 4:[Sorting 5:i 6:i 7:i"),
        ("Sorting", "1:i 2:t 3:t"),
        ("Column", "1:b 2:i 3:ColumnData 4:i 5:i 6:i 7:i 8:Crypto 9:b"),
        ("Crypto", "1:Empty 2:CryptoKey"),
        ("CryptoKey", "1:[b 2:b"),
        (
            "ColumnData",
            "1:i 2:[i 3:[b 4:i 5:i 6:i 7:i 8:[KeyValue 9:i 10:i 11:i 12:Statistics 13:[PageStatistics 14:i 15:i "
                + "16:Sizes 17:Geospatial"
        ),
        ("Statistics", "1:b 2:b 3:i 4:i 5:b 6:b 7:t 8:t"),
        ("PageStatistics", "1:i 2:i 3:i"),
        ("Sizes", "1:i 2:[i 3:[i"),
        ("Geospatial", "1:Box 2:[i"),
        ("Box", "1:d 2:d 3:d 4:d 5:d 6:d 7:d 8:d"),
        ("Page", "1:i 2:i 3:i 4:i 5:DataPage 6:Empty 7:DictionaryPage 8:DataPage2"),
        ("DataPage", "1:i 2:i 3:i 4:i 5:Statistics"),
        ("DictionaryPage", "1:i 2:i 3:t"),
        ("DataPage2", "1:i 2:i 3:i 4:i 5:i 6:i 7:t 8:Statistics")
    );

    /// <summary>Checks that a file ends in well-formed metadata.</summary>
    /// <exception cref="InvalidDataException">It does not.</exception>
    public static void CheckFooter(Stream file)
    {
        Span<byte> end = stackalloc byte[8];
        if (file.Length < 12)
            throw new InvalidDataException("it is too short for a Parquet file");
        file.Position = file.Length - end.Length;
        file.ReadExactly(end);
        var length = BinaryPrimitives.ReadInt32LittleEndian(end);
        if (!end[4..].SequenceEqual("PAR1"u8) || length < 1 || length > file.Length - 12)
            throw new InvalidDataException("it does not end as a Parquet file");
        if (length > LongestFooter)
            throw new InvalidDataException($"its metadata is longer than {LongestFooter >> 20} MiB");
        new ThriftReader(Read(file, file.Length - end.Length - length, length), schema).Read("File");
    }

    private static byte[] Read(Stream file, long at, int length)
    {
        var bytes = new byte[length];
        file.Position = at;
        file.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>Checks the sizes that a row group and the pages of its columns state.</summary>
    /// <exception cref="InvalidDataException">A page reaches over the file's end or holds nothing.</exception>
    /// <exception cref="UserFault">The group holds more than its stored bytes justify.</exception>
    public static void CheckGroup(Stream file, string path, RowGroup group)
    {
        var (stored, held) = (0L, 0L);
        foreach (var column in group.Columns)
        {
            var data = column.MetaData ?? throw new InvalidDataException("it has a column without metadata");
            if (data.NumValues < 0 || data.Statistics?.NullCount is < 0)
                throw new InvalidDataException("it has a column with fewer than no values");
            var next = new[] { data.DictionaryPageOffset ?? 0, data.DataPageOffset, data.IndexPageOffset ?? 0 }
                .Where(offset => offset != 0)
                .DefaultIfEmpty(-1)
                .Min();
            var values = 0L;
            while (values < data.NumValues)
            {
                var page = ReadPage(file, next, data.Codec);
                (next, values) = (page.Next, values + page.Values);
                (stored, held) = (stored + page.Stored, held + page.Held);
            }
        }
        void Fit(long found, long most, int perByte, string what)
        {
            if (found >= 0 && found <= Math.Max(most, perByte * stored))
                return;
            throw new UserFault(
                $"{path} has a row group that is not read.",
                $"{found:N0} {what} in {stored:N0} stored bytes",
                "write it with smaller row groups: pyarrow.parquet.write_table(…, row_group_size=100_000)"
            )
            {
                OverBudget = true,
            };
        }
        Fit(group.NumRows, Rows, RowsPerByte, "rows");
        Fit(group.Columns.Max(column => column.MetaData?.NumValues) ?? 0, Values, ValuesPerByte, "values of a column");
        Fit(held, Bytes, BytesPerByte, "bytes of data");
    }

    private static (long Next, long Values, long Stored, long Held) ReadPage(
        Stream file,
        long at,
        CompressionCodec codec
    )
    {
        var (head, length, numbers) = ReadHeader(file, at);
        long Number(string name) => numbers.GetValueOrDefault(name);
        var (size, stored, begin) = (Number("2"), Number("3"), at + length);
        // The entries of a dictionary are no values of the column.
        var (entries, values) = Number("1") switch
        {
            (long)PageType.DATA_PAGE => (Number("5.1"), Number("5.1")),
            (long)PageType.DATA_PAGE_V2 => (Number("8.1"), Number("8.1")),
            (long)PageType.DICTIONARY_PAGE => (Number("7.1"), 0),
            _ => throw new InvalidDataException("it has a page of an unknown kind"),
        };
        if (size is < 0 or > int.MaxValue || stored < 0 || stored > file.Length - begin)
            throw new InvalidDataException("it has a page that reaches over the end of the file");
        if (entries < 0 || Number("1") != (long)PageType.DICTIONARY_PAGE && entries == 0)
            throw new InvalidDataException("it has a page that holds nothing");
        var start = head.AsSpan(length, (int)Math.Min(stored, head.Length - length));
        var held = codec switch
        {
            CompressionCodec.SNAPPY => SnappyLength(start),
            CompressionCodec.ZSTD => ZstdLength(start, () => Read(file, begin, (int)Math.Min(stored, int.MaxValue))),
            _ => size,
        };
        if (held < 0)
            throw new InvalidDataException("it has a page that holds more than can be");
        return (begin + stored, values, stored + length, Math.Max(size, held) + 16 * (entries - values));
    }

    private static (byte[] Bytes, int Length, Dictionary<string, long> Numbers) ReadHeader(Stream file, long at)
    {
        if (at < 0 || at >= file.Length)
            throw new InvalidDataException("it has a page outside of the file");
        foreach (var longest in (int[])[UsualHeader, LongestHeader])
        {
            var head = Read(file, at, (int)Math.Min(longest, file.Length - at));
            var reader = new ThriftReader(head, schema);
            var numbers = new Dictionary<string, long>();
            try
            {
                reader.Read("Page", numbers);
                return (head, reader.Position, numbers);
            }
            catch (EndOfStreamException) when (head.Length < Math.Min(LongestHeader, file.Length - at))
            {
                // Statistics make a header long.
            }
        }
        throw new InvalidDataException("it has a page whose header ends early");
    }

    // What a frame states (RFC 8878, 3.1.1.1); where it states nothing, what its blocks may hold.
    private static long ZstdLength(ReadOnlySpan<byte> begin, Func<byte[]> whole)
    {
        if (begin.Length < 5 || BinaryPrimitives.ReadUInt32LittleEndian(begin) != 0xFD2FB528)
            throw new InvalidDataException("it has a page that is not compressed by zstd as it says");
        var (flag, single) = (begin[4] >> 6, (begin[4] & 0x20) != 0);
        var at =
            5
            + (single ? 0 : 1)
            + (begin[4] & 3) switch
            {
                3 => 4,
                var id => id,
            };
        var size = flag == 0 ? (single ? 1 : 0) : 1 << flag;
        if (size == 0 || begin.Length < at + size)
            return (long)ZstdSharp.Decompressor.GetDecompressedSize(whole());
        return size switch
        {
            1 => begin[at],
            2 => BinaryPrimitives.ReadUInt16LittleEndian(begin[at..]) + 256,
            4 => BinaryPrimitives.ReadUInt32LittleEndian(begin[at..]),
            _ => Math.Max(BinaryPrimitives.ReadInt64LittleEndian(begin[at..]), -1),
        };
    }

    // A Snappy block begins with its length as a varint (google/snappy, format_description.txt).
    private static long SnappyLength(ReadOnlySpan<byte> block)
    {
        var length = 0L;
        for (var i = 0; i < Math.Min(5, block.Length); i++)
        {
            length |= (long)(block[i] & 0x7F) << (7 * i);
            if (block[i] < 0x80)
                break;
        }
        return length;
    }
}
