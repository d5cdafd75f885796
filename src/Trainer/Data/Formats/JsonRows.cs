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
internal static class JsonRows
{
    /// <param name="file">The file.</param>
    /// <param name="objects">Whether the rows stand one after the other, in no list.</param>
    /// <param name="builder">Takes the rows.</param>
    /// <param name="at">Told how many stored bytes have been read.</param>
    public static IEnumerable<Chunk> Read(DataFile file, bool objects, ChunkBuilder builder, Action<long>? at)
    {
        using var stream = file.Open(at);
        var row = new ArrayBufferWriter<byte>(1 << 16);
        var buffer = new byte[1 << 18];
        // depth: open brackets. rows: the depth within the array of rows, 0 while outside of it. root: depth at which
        // that array may begin. Objects one after the other are the elements of a list whose brackets and commas are
        // not written.
        var outer = objects ? 1 : 0;
        var (depth, rows, root, line, rowLine) = (outer, outer, -1, 1, 0);
        var (quoted, escaped, found, first) = (false, false, objects, true);
        int count;
        while ((count = stream.Read(buffer)) > 0)
        {
            var i = first && buffer.AsSpan(0, count).StartsWith(Encoding.UTF8.Preamble) ? 3 : 0;
            first = false;
            for (; i < count; i++)
            {
                var c = buffer[i];
                if (c == '\n')
                    line++;
                if (depth == 0 && root >= 0 && !" \t\r\n[]{}"u8.Contains(c))
                    throw Fault(file, $"line {line}: more behind the end of the {(root == 0 ? "list" : "object")}");
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
                    if (root < 0)
                        root = c == '[' ? 0 : 1;
                    depth++;
                    if (c == '[' && depth == root + 1 && rows == 0)
                    {
                        if (found)
                            throw Fault(file, $"line {line}: a second list; which holds the rows cannot be told");
                        (found, rows) = (true, depth);
                        continue;
                    }
                }
                else if (c is (byte)']' or (byte)'}')
                {
                    if (depth-- == rows && rows > outer)
                    {
                        Add(last: true);
                        rows = 0;
                        continue;
                    }
                    if (depth < outer)
                        throw Fault(file, $"line {line}: a bracket that closes nothing");
                }
                else if (c == ',' && depth == rows && rows > outer)
                {
                    Add(last: false);
                    if (builder.Full)
                        yield return builder.Take();
                    continue;
                }
                else if (root < 0 && c is not ((byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n'))
                {
                    throw Fault(file, $"line {line}: neither a list nor an object");
                }
                if (rows == 0)
                    continue;
                if (row.WrittenCount == 0)
                {
                    if (c is (byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n')
                        continue;
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
                if (objects && depth == outer && !quoted && c is (byte)'}' or (byte)']')
                {
                    Add(last: true);
                    if (builder.Full)
                        yield return builder.Take();
                }
            }
        }
        if (depth > outer || quoted || (objects && row.WrittenCount > 0))
            throw Fault(file, "the file ends in the middle");
        if (!found && root >= 0)
            throw Fault(file, "an object without a list");

        void Add(bool last)
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
    }

    private static UserFault Fault(DataFile file, string found) =>
        new(
            $"{file.Path} is not a JSON file of rows.",
            found,
            "write a list of objects, an object with one list, or one object a line"
        );
}
