using System.Buffers;
using System.Collections;
using System.Globalization;
using System.Text.Json;
using Memopt.Core;
using Memopt.Trainer.Sources;
using Parquet;
using Parquet.Meta;
using Parquet.Serialization;

namespace Memopt.Trainer.Data.Formats;

/// <summary>Parquet, one row group at a time: values as JSON has them, dates as ISO 8601; a column without a value in a
/// row is left out.</summary>
internal static class ParquetRows
{
    private static readonly ParquetOptions options = new() { TreatByteArrayAsString = true };

    // Rows share the entries of a column's dictionary; else every row has a copy, and a small file holds any amount.
    static ParquetRows() =>
        (ParquetOptions.PreferUntypedString, ParquetOptions.PreferUntypedByteArray) = (false, false);

    public static IEnumerable<Chunk> Read(DataFile file, ChunkBuilder builder, Action<long>? at)
    {
        if (file.Compression is not null)
            throw new UserFault(
                $"{file.Path} is a compressed Parquet file.",
                "Parquet is compressed inside and has to be read from its end",
                "decompress it once"
            );
        UntrustedFile.Check(file.Path);
        using var stream = File.OpenRead(file.Path);
        ParquetCheck.CheckFooter(stream);
        var groups = Groups(file, stream);
        var json = new ArrayBufferWriter<byte>();
        using var writer = new Utf8JsonWriter(json, JsonText.Plain);
        var number = 0;
        for (var group = 0; group < groups.Count; group++)
        {
            foreach (var row in Rows(file, stream, groups[group], group))
            {
                json.ResetWrittenCount();
                writer.Reset(json);
                Write(writer, row);
                writer.Flush();
                if (json.WrittenCount > RowFile.LongestRow)
                    throw RowFile.TooLong(file, number + 1, RowFile.Limit, "split its text over several rows");
                builder.Add(json.WrittenSpan, ++number);
                if (builder.Full)
                    yield return builder.Take();
            }
            at?.Invoke(stream.Length * (group + 1) / groups.Count);
        }
    }

    // The library's two interfaces are asynchronous only; the stream is a local file.
    private static IList<Dictionary<string, object?>> Rows(DataFile file, Stream stream, RowGroup group, int number) =>
        Guarded(
            file,
            () =>
            {
                ParquetCheck.CheckGroup(stream, file.Path, group);
                return ParquetSerializer.DeserializeUntypedAsync(stream, options, number).GetAwaiter().GetResult().Data;
            }
        )!;

    private static IReadOnlyList<RowGroup> Groups(DataFile file, Stream stream) =>
        Guarded(
            file,
            () =>
            {
                var reader = ParquetReader.CreateAsync(stream, options, leaveStreamOpen: true).GetAwaiter().GetResult();
                try
                {
                    return reader.Metadata?.RowGroups ?? [];
                }
                finally
                {
                    reader.DisposeAsync().AsTask().GetAwaiter().GetResult();
                }
            }
        );

    private static T Guarded<T>(DataFile file, Func<T> read)
    {
        try
        {
            return read();
        }
        catch (InvalidDataException e) when (e.InnerException is NotSupportedException or NotImplementedException)
        {
            // The library knows no lists in data pages of version 2, and deltas of whole numbers and texts only.
            throw new UserFault(
                $"{file.Path} has an encoding of Parquet that is not read here.",
                $"{e.Message}: {e.InnerException.Message}",
                "write it with data pages of version 1 and without delta encodings, as pyarrow does when nothing "
                    + "else is asked for",
                e
            );
        }
        catch (Exception e)
            when (e
                    is not (
                        UserFault
                        or IOException
                        or InvalidDataException
                        or UnauthorizedAccessException
                        or OutOfMemoryException
                    )
            )
        {
            throw new InvalidDataException(e.Message, e); // what the library makes of bytes that are damaged
        }
    }

    private static void Write(Utf8JsonWriter writer, object? value)
    {
        switch (value)
        {
            case null:
                writer.WriteNullValue();
                break;
            case string text:
                writer.WriteStringValue(text);
                break;
            case ReadOnlyMemory<char> text:
                writer.WriteStringValue(text.Span);
                break;
            case bool flag:
                writer.WriteBooleanValue(flag);
                break;
            case byte or sbyte or short or ushort or int or uint or long:
                writer.WriteNumberValue(Convert.ToInt64(value, CultureInfo.InvariantCulture));
                break;
            case ulong number:
                writer.WriteNumberValue(number);
                break;
            case float or double when !double.IsFinite(Convert.ToDouble(value, CultureInfo.InvariantCulture)):
                writer.WriteNullValue();
                break;
            case float number:
                writer.WriteNumberValue(number);
                break;
            case double number:
                writer.WriteNumberValue(number);
                break;
            case decimal number:
                writer.WriteNumberValue(number);
                break;
            case DateTime time:
                writer.WriteStringValue(
                    time.TimeOfDay == TimeSpan.Zero
                        ? time.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)
                        : time.ToString("O", CultureInfo.InvariantCulture)
                );
                break;
            case IDictionary<string, object?> fields:
                writer.WriteStartObject();
                foreach (var (name, field) in fields)
                {
                    writer.WritePropertyName(name);
                    Write(writer, field);
                }
                writer.WriteEndObject();
                break;
            case IDictionary map:
                writer.WriteStartObject();
                foreach (DictionaryEntry entry in map)
                {
                    writer.WritePropertyName(Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!);
                    Write(writer, entry.Value);
                }
                writer.WriteEndObject();
                break;
            case byte[] bytes:
                writer.WriteBase64StringValue(bytes);
                break;
            case ReadOnlyMemory<byte> bytes:
                writer.WriteBase64StringValue(bytes.Span);
                break;
            case IEnumerable list:
                writer.WriteStartArray();
                foreach (var item in list)
                    Write(writer, item);
                writer.WriteEndArray();
                break;
            default:
                writer.WriteStringValue(Convert.ToString(value, CultureInfo.InvariantCulture));
                break;
        }
    }
}
