using System.Buffers;
using System.Text;
using System.Text.Json;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Trainer.Sources;
using nietras.SeparatedValues;

namespace Memopt.Trainer.Data.Formats;

/// <summary>CSV and TSV with a head line, quoted as RFC 4180 says; every value is text.</summary>
internal static class CsvRows
{
    // A row: the library itself refuses 16 Mi characters, with a message that names no line.
    private const int LongestHead = 1 << 20,
        LongestRow = 8 << 20;

    private static readonly UTF8Encoding strict = new(
        encoderShouldEmitUTF8Identifier: false,
        throwOnInvalidBytes: true
    );

    public static IEnumerable<Chunk> Read(DataFile file, ChunkBuilder builder, Action<long>? at)
    {
        var separator = file.Format == DataFormat.Tsv ? '\t' : Separator(file);
        using var text = new LimitedText(
            new StreamReader(file.Open(at), strict, detectEncodingFromByteOrderMarks: true, 1 << 16),
            file
        );
        using var reader = Guarded(
            file,
            () =>
                Sep.New(separator)
                    .Reader(options => options with { Unescape = true, DisableColCountCheck = true })
                    .From(text)
        );
        text.Taken(0);
        var names = reader
            .Header.ColNames.Select(name => JsonEncodedText.Encode(Bare(name), JsonText.Encoder))
            .ToArray();
        var json = new ArrayBufferWriter<byte>();
        using var writer = new Utf8JsonWriter(json, JsonText.Plain);
        while (Guarded(file, reader.MoveNext))
        {
            text.Taken(reader.Current.LineNumberToExcl);
            Add(reader.Current);
            if (builder.Full)
                yield return builder.Take();
        }

        void Add(SepReader.Row row)
        {
            if (row.ColCount == 1 && row.Span.IsEmpty)
                return;
            if (Quotes(row.Span, separator) is { } problem)
            {
                builder.Fault(row.LineNumberFrom, problem);
                return;
            }
            if (row.ColCount != names.Length)
            {
                builder.Fault(row.LineNumberFrom, $"{row.ColCount} values for {names.Length} columns");
                return;
            }
            json.ResetWrittenCount();
            writer.Reset(json);
            writer.WriteStartObject();
            for (var column = 0; column < names.Length; column++)
                writer.WriteString(names[column], row[column].Span);
            writer.WriteEndObject();
            writer.Flush();
            builder.Add(json.WrittenSpan, row.LineNumberFrom);
        }
    }

    /// <summary>What is wrong with the quotes of a row. To the reader any quote hides separators and ends of lines up
    /// to the next one; one within a value that does not begin with it (5" pipe) would make two rows one.
    /// </summary>
    private static string? Quotes(ReadOnlySpan<char> row, char separator)
    {
        if (!row.Contains('"'))
            return null;
        var (inside, stray) = (false, false);
        for (var i = 0; i < row.Length; i++)
        {
            if (row[i] == '"')
            {
                if (!inside && (i == 0 || row[i - 1] != '"'))
                    stray = i > 0 && row[i - 1] != separator;
                inside = !inside;
            }
            else if (inside && stray && (row[i] == separator || row[i] is '\n' or '\r'))
            {
                return "a quote within a value that is not in quotes";
            }
        }
        return inside ? "a quote that is never closed" : null;
    }

    /// <summary>What stands between the names of the head line: a comma, else what else is in use.</summary>
    private static char Separator(DataFile file)
    {
        using var text = new StreamReader(file.Open(), strict);
        var buffer = new char[LongestHead];
        var head = buffer.AsSpan(0, Guarded(file, () => text.ReadBlock(buffer)));
        if (head.IndexOfAny('\r', '\n') is >= 0 and var end)
            head = head[..end];
        foreach (var separator in ",;\t|")
        {
            if (head.Contains(separator))
                return separator;
        }
        return ',';
    }

    private static string Bare(string name) =>
        name.Length > 1 && name[0] == '"' && name[^1] == '"' ? name[1..^1].Replace("\"\"", "\"") : name;

    private static T Guarded<T>(DataFile file, Func<T> read)
    {
        try
        {
            return read();
        }
        catch (DecoderFallbackException error)
        {
            throw new UserFault($"{file.Path} is not UTF-8 text.", error.Message, "write it as UTF-8", error);
        }
        catch (Exception error) when (error is ArgumentException or NotSupportedException or InvalidOperationException)
        {
            throw new UserFault(
                $"{file.Path} is not a table that can be read.",
                error.Message.Split('\n')[0],
                "write CSV with a head line, values with commas or quotes in quotes",
                error
            );
        }
    }

    /// <summary>A table's text. The reader holds a row as a whole, and a quote that is never closed makes all the rest
    /// one.</summary>
    private sealed class LimitedText(TextReader inner, DataFile file) : TextReader
    {
        private int read,
            line;

        /// <summary>Tells that the head, or the rows up to a line, have been read.</summary>
        public void Taken(int upTo) => (read, line) = (0, Math.Max(1, upTo));

        public override int Read(char[] buffer, int index, int count) => Read(buffer.AsSpan(index, count));

        public override int Read(Span<char> buffer)
        {
            var count = inner.Read(buffer);
            if ((read += count) > (line == 0 ? LongestHead : LongestRow))
                throw RowFile.TooLong(
                    file,
                    Math.Max(1, line),
                    line == 0 ? "1 Mi characters" : "8 Mi characters",
                    "is a quote never closed? write one row a line"
                );
            return count;
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
                inner.Dispose();
            base.Dispose(disposing);
        }
    }
}
