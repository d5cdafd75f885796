using System.Buffers;
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
                ParquetValues.Write(writer, row);
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
}
