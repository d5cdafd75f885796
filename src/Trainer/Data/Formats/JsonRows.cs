using System.Buffers;
using System.Text;
using System.Text.Unicode;
using Memopt.Core;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Formats;

/// <summary>
/// The elements of the one array of a JSON file: the file itself, or the only list in its object; or the objects that
/// stand in it one after the other. Cut out by counting brackets; what each holds is checked as a row.
/// </summary>
internal sealed class JsonRows
{
    private readonly DataFile file;
    private readonly bool objects;
    private readonly ChunkBuilder builder;
    private readonly ArrayBufferWriter<byte> row = new(1 << 16);

    // Objects one after the other are the elements of a list whose brackets and commas are not written.
    private readonly int outer;
    private int depth; // open brackets
    private int rows; // the depth within the array of rows, 0 while outside of it
    private int root = -1; // depth at which that array may begin
    private int line = 1,
        rowLine;
    private bool quoted,
        escaped,
        found;

    private JsonRows(DataFile file, bool objects, ChunkBuilder builder)
    {
        (this.file, this.objects, this.builder, found) = (file, objects, builder, objects);
        depth = rows = outer = objects ? 1 : 0;
    }

    /// <param name="file">The file.</param>
    /// <param name="objects">Whether the rows stand one after the other, in no list.</param>
    /// <param name="builder">Takes the rows.</param>
    /// <param name="at">Receives how many stored bytes have been read.</param>
    public static IEnumerable<Chunk> Read(DataFile file, bool objects, ChunkBuilder builder, Action<long>? at)
    {
        using var stream = file.Open(at);
        var reader = new JsonRows(file, objects, builder);
        var buffer = new byte[1 << 18];
        var first = true;
        int count;
        while ((count = stream.Read(buffer)) > 0)
        {
            var start = first && buffer.AsSpan(0, count).StartsWith(Encoding.UTF8.Preamble) ? 3 : 0;
            first = false;
            for (var i = start; i < count; i++)
            {
                if (reader.Read(buffer[i]) && builder.Full)
                    yield return builder.Take();
            }
        }
        reader.CheckEnd();
    }

    /// <summary>Takes a byte; whether a row ended with it and others may follow.</summary>
    private bool Read(byte c)
    {
        if (c == '\n')
            line++;
        if (depth == 0 && root >= 0 && !" \t\r\n[]{}"u8.Contains(c))
            throw Fault($"line {line}: more behind the end of the {(root == 0 ? "list" : "object")}");
        if (quoted)
        {
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
        }
        else if (c == '"')
        {
            quoted = true;
        }
        else if (c is (byte)'[' or (byte)'{')
        {
            if (Open(c))
                return false;
        }
        else if (c is (byte)']' or (byte)'}')
        {
            if (Close())
                return false;
        }
        else if (c == ',' && depth == rows && rows > outer)
        {
            Add(last: false);
            return true;
        }
        else if (root < 0 && !IsSpace(c))
        {
            throw Fault($"line {line}: neither a list nor an object");
        }
        return rows > 0 && Append(c);
    }

    private static bool IsSpace(byte c) => c is (byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n';

    /// <summary>Whether the bracket opens the array of rows.</summary>
    private bool Open(byte c)
    {
        if (root < 0)
            root = c == '[' ? 0 : 1;
        depth++;
        if (c != '[' || depth != root + 1 || rows != 0)
            return false;
        if (found)
            throw Fault($"line {line}: a second list: the list of rows is ambiguous");
        (found, rows) = (true, depth);
        return true;
    }

    /// <summary>Whether the bracket closes the array of rows.</summary>
    private bool Close()
    {
        if (depth-- == rows && rows > outer)
        {
            Add(last: true);
            rows = 0;
            return true;
        }
        return depth < outer ? throw Fault($"line {line}: a bracket that closes nothing") : false;
    }

    /// <summary>Takes a byte of a row; whether an object ended with it whose end is the row's.</summary>
    private bool Append(byte c)
    {
        if (row.WrittenCount == 0)
        {
            if (IsSpace(c))
                return false;
            rowLine = line;
        }
        if (row.WrittenCount == RowFile.LongestRow)
            throw RowFile.TooLong(
                file,
                rowLine,
                RowFile.Limit,
                "is a quote or a bracket never closed? write one JSON object a line"
            );
        row.GetSpan(1)[0] = c;
        row.Advance(1);
        if (!objects || depth != outer || quoted || c is not ((byte)'}' or (byte)']'))
            return false;
        Add(last: true);
        return true;
    }

    private void Add(bool last)
    {
        var text = row.WrittenSpan;
        if (!Utf8.IsValid(text))
            throw RowFile.NotText(file, rowLine);
        if (text.Length > 0)
            builder.Add(text, rowLine);
        else if (!last)
            builder.Fault(line, "nothing between two commas");
        row.ResetWrittenCount();
    }

    private void CheckEnd()
    {
        if (depth > outer || quoted || (objects && row.WrittenCount > 0))
            throw Fault("the file ends in the middle");
        if (!found && root >= 0)
            throw Fault("an object without a list");
    }

    private UserFault Fault(string found) =>
        new(
            $"{file.Path} is not a JSON file of rows.",
            found,
            "write a list of objects, an object with one list, or one object a line"
        );
}
