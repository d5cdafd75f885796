using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Formats;

/// <summary>Reads files of rows, of any format, as chunks of JSON rows; never more of a file than a chunk (for Parquet,
/// a row group) at once.</summary>
internal static class RowFile
{
    /// <summary>Bytes of JSON text in a chunk: some seconds of work, and what a kill costs at most for each
    /// core.</summary>
    public const int ChunkBytes = 8 << 20;

    /// <summary>Most bytes of a row's JSON text: tokenizing a text takes up to about 100 times its length in
    /// memory.</summary>
    public const int LongestRow = 8 << 20;

    public const string Limit = "8 MiB";

    private const int LongestPeek = 1 << 20;

    /// <param name="file">The file.</param>
    /// <param name="chunkBytes">Where chunks end.</param>
    /// <param name="at">Receives how many stored bytes have been read.</param>
    public static IEnumerable<Chunk> Read(DataFile file, int chunkBytes = ChunkBytes, Action<long>? at = null)
    {
        var builder = new ChunkBuilder(chunkBytes);
        using var chunks = (
            file.Format switch
            {
                DataFormat.Csv or DataFormat.Tsv => CsvRows.Read(file, builder, at),
                DataFormat.Parquet => ParquetRows.Read(file, builder, at),
                _ => Json(file, builder, at),
            }
        ).GetEnumerator();
        while (true)
        {
            try
            {
                if (!chunks.MoveNext())
                    break;
            }
            catch (Exception e)
                when (e is InvalidDataException or ZstdSharp.ZstdException or EndOfStreamException
                    || (e is InvalidOperationException && file.Compression == ".br")
                )
            {
                throw new UserFault(
                    $"{file.Path} is damaged or not what its name says.",
                    found: e.Message.Split('\n')[0],
                    next: "check how it was made, or name its format: {\"source\": …, \"format\": …}",
                    inner: e
                );
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault(
                    $"The data file {file.Path} cannot be read.",
                    e.Message,
                    "check data.train and data.eval",
                    e
                );
            }
            yield return chunks.Current;
        }
        if (!builder.Empty)
            yield return builder.Take();
    }

    // An iterator, so that the layout too is looked at where faults of the file are caught.
    private static IEnumerable<Chunk> Json(DataFile file, ChunkBuilder builder, Action<long>? at)
    {
        var layout = Layout(file);
        foreach (
            var chunk in layout == JsonLayout.Lines
                ? Lines(file, builder, at)
                : JsonRows.Read(file, layout == JsonLayout.Objects, builder, at)
        )
            yield return chunk;
    }

    /// <summary>How the rows of a file of JSON stand in it.</summary>
    private enum JsonLayout
    {
        Lines,
        List,
        Objects,
    }

    /// <summary>
    /// How they really stand: what is called .json is as often JSON Lines, and what is called .jsonl is at times a
    /// list, or objects over several lines (jq's).
    /// </summary>
    private static JsonLayout Layout(DataFile file)
    {
        var named = file.Format == DataFormat.Json ? JsonLayout.List : JsonLayout.Lines;
        using var stream = file.Open();
        var buffer = new byte[LongestPeek];
        var text = buffer.AsSpan(0, stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
        var whole = text.Length < LongestPeek;
        text = text[(text.StartsWith(Encoding.UTF8.Preamble) ? 3 : 0)..].TrimStart(" \t\r\n"u8);
        if (text.Length == 0 || text[0] != (byte)'{')
            return text.Length > 0 && text[0] == (byte)'[' ? JsonLayout.List : named;
        if (FirstObject(text, whole) is not var (first, length))
            return named;
        // A first object is a row, unless no other follows and it holds the rows.
        if (
            !text[length..].TrimStart(" \t\r\n"u8).StartsWith("{"u8)
            && !RowReader.IsRow(first)
            && (
                named == JsonLayout.List
                || first.Any(pair => pair.Value is JsonArray { Count: > 0 } list && list[0] is JsonObject)
            )
        )
            return JsonLayout.List;
        var line = text.IndexOf((byte)'\n') is >= 0 and var end ? text[..end] : text;
        return length >= line.TrimEnd(" \t\r"u8).Length && length <= line.Length
            ? JsonLayout.Lines
            : JsonLayout.Objects;
    }

    /// <summary>
    /// The object that a text begins with, and its bytes; null when it is none, or does not end here.
    /// </summary>
    private static (JsonObject Object, int Length)? FirstObject(ReadOnlySpan<byte> text, bool whole)
    {
        try
        {
            var reader = new Utf8JsonReader(text, whole, new JsonReaderState(new() { AllowMultipleValues = true }));
            return
                reader.Read()
                && reader.TrySkip()
                && RowJson.Parse(text[..(int)reader.BytesConsumed]) is JsonObject { Count: > 0 } found
                ? (found, (int)reader.BytesConsumed)
                : null;
        }
        catch (JsonException)
        {
            return null; // no JSON, or a key twice
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
                        throw TooLong(file, line, Limit, "write one JSON object a line");
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

    internal static UserFault TooLong(DataFile file, int line, string limit, string next) =>
        new(
            $"{file.Path} has no rows that can be read.",
            found: $"the row at line {line} is longer than {limit}",
            next: next
        )
        {
            Problems = [new("data", $"is longer than {limit}: {next}", file.Path, line, 1, "MEMOPT0007")],
        };

    internal static UserFault NotText(DataFile file, int line) =>
        new($"{file.Path} is not UTF-8 text.", $"line {line} has bytes that are no character", "write it as UTF-8")
        {
            Problems =
            [
                new("data", "has bytes that are no character: write it as UTF-8", file.Path, line, 1, "MEMOPT0007"),
            ],
        };
}
