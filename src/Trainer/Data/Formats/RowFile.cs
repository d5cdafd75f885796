using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;

namespace Memopt.Trainer.Data.Formats;

/// <summary>Reads files of rows, of any format, as chunks of JSON rows; never more of a file than a chunk (for Parquet, a row group) at once.</summary>
internal static class RowFile
{
    /// <summary>Bytes of JSON text in a chunk: some seconds of work, and what a kill costs at most for each core.</summary>
    public const int ChunkBytes = 8 << 20;

    /// <summary>Longest row that is taken for one, in bytes or characters; a compressed file of some KB may hold a longer one.</summary>
    internal const int LongestRow = 64 << 20;

    private const int LongestPeek = 1 << 20;

    /// <param name="file">The file.</param>
    /// <param name="chunkBytes">Where chunks end.</param>
    /// <param name="at">Told how many stored bytes have been read.</param>
    public static IEnumerable<Chunk> Read(DataFile file, int chunkBytes = ChunkBytes, Action<long>? at = null)
    {
        var builder = new ChunkBuilder(chunkBytes);
        using var chunks = (Format(file) switch
        {
            DataFormat.Jsonl => Lines(file, builder, at),
            DataFormat.Json => JsonRows.Read(file, builder, at),
            DataFormat.Csv or DataFormat.Tsv => CsvRows.Read(file, builder, at),
            _ => ParquetRows.Read(file, builder, at),
        }).GetEnumerator();
        while (true)
        {
            try
            {
                if (!chunks.MoveNext())
                    break;
            }
            catch (Exception e) when (e is InvalidDataException or ZstdSharp.ZstdException or EndOfStreamException || (e is InvalidOperationException && file.Compression == ".br"))
            {
                throw new UserFault($"{file.Path} is damaged or not what its name says.", found: e.Message.Split('\n')[0], next: "check how it was made, or name its format: {\"source\": …, \"format\": …}", inner: e);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault($"The data file {file.Path} cannot be read.", e.Message, "check data.train and data.eval", e);
            }
            yield return chunks.Current;
        }
        if (!builder.Empty)
            yield return builder.Take();
    }

    /// <summary>The format that a file really has: what is called .json is as often JSON Lines.</summary>
    private static DataFormat Format(DataFile file)
    {
        if (file.Format != DataFormat.Json)
            return file.Format;
        using var stream = file.Open();
        var buffer = new byte[LongestPeek];
        var text = buffer.AsSpan(0, stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
        var whole = text.Length < LongestPeek;
        text = text[(text.StartsWith(Encoding.UTF8.Preamble) ? 3 : 0)..].TrimStart(" \t\r\n"u8);
        if (text.Length == 0 || text[0] != (byte)'{')
            return DataFormat.Json;
        var end = text.IndexOf((byte)'\n');
        if (end < 0 && !whole)
            return DataFormat.Json;
        try
        {
            // A first line that is an object is a row, unless it is all there is and holds the rows.
            var first = JsonNode.Parse(end < 0 ? text : text[..end]) as JsonObject;
            return first is not null && (end >= 0 && text[end..].Trim(" \t\r\n"u8).Length > 0 || RowReader.IsRow(first)) ? DataFormat.Jsonl : DataFormat.Json;
        }
        catch (JsonException)
        {
            return DataFormat.Json;
        }
    }

    private static IEnumerable<Chunk> Lines(DataFile file, ChunkBuilder builder, Action<long>? at)
    {
        using var stream = file.Open(at);
        var buffer = new byte[1 << 20];
        var (from, filled, line, ended) = (0, 0, 1, false);
        while (!ended || from < filled)
        {
            var length = buffer.AsSpan(from, filled - from).IndexOf((byte)'\n');
            if (length < 0 && !ended)
            {
                if (from > 0)
                {
                    buffer.AsSpan(from, filled - from).CopyTo(buffer);
                    (from, filled) = (0, filled - from);
                }
                else if (filled == buffer.Length)
                {
                    if (filled >= LongestRow)
                        throw new UserFault($"{file.Path} has no rows that can be read.", found: $"line {line} is longer than {LongestRow >> 20} MiB", next: "write one JSON object a line");
                    Array.Resize(ref buffer, buffer.Length * 2);
                }
                var count = stream.Read(buffer, filled, buffer.Length - filled);
                ended = count == 0;
                filled += count;
                continue;
            }
            var end = length < 0 ? filled : from + length;
            Add(buffer.AsSpan(from, end - from), line++);
            from = end + 1;
            if (builder.Full)
                yield return builder.Take();
        }

        void Add(Span<byte> text, int number)
        {
            if (number == 1 && text.StartsWith(Encoding.UTF8.Preamble))
                text = text[3..];
            if (!Utf8.IsValid(text))
                throw NotText(file, number);
            text = text.Trim(" \t\r\v\f"u8);
            if (text.Length > 0)
                builder.Add(text, number);
        }
    }

    internal static UserFault NotText(DataFile file, int line) => new($"{file.Path} is not UTF-8 text.", $"line {line} has bytes that are no character", "write it as UTF-8")
    { Problems = [new("data", "has bytes that are no character: write it as UTF-8", file.Path, line, 1, "MEMOPT0007")] };
}
