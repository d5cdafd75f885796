using System.Buffers;

namespace Memopt.Trainer.Data;

/// <summary>A row as bytes: its ids as variable-length integers, then the stretches that carry loss; labels of their
/// own are written out.</summary>
internal static class RowCode
{
    public static void Encode(Row row, IBufferWriter<byte> into)
    {
        Write(into, row.Ids.Length);
        foreach (var id in row.Ids)
            Write(into, id);
        var runs = new List<int>();
        for (var t = 0; t < row.Labels.Length; t++)
        {
            if (row.Labels[t] == Row.NoLoss)
                continue;
            if (row.Labels[t] != row.Ids[t])
            {
                Write(into, 0);
                foreach (var label in row.Labels)
                    Write(into, label == Row.NoLoss ? 0 : label + 1);
                return;
            }
            if (runs.Count > 0 && runs[^1] == t)
                runs[^1] = t + 1;
            else
                runs.AddRange([t, t + 1]);
        }
        Write(into, runs.Count / 2 + 1);
        var at = 0;
        foreach (var end in runs)
        {
            Write(into, end - at);
            at = end;
        }
    }

    public static Row Decode(ReadOnlySpan<byte> bytes, int line)
    {
        var count = Read(ref bytes);
        if (count > bytes.Length) // a token takes a byte or more
            throw new OverflowException("a row names more tokens than it has bytes");
        var ids = new int[count];
        for (var t = 0; t < ids.Length; t++)
            ids[t] = Read(ref bytes);
        var labels = new int[ids.Length];
        Array.Fill(labels, Row.NoLoss);
        var runs = Read(ref bytes) - 1;
        for (var t = 0; runs < 0 && t < labels.Length; t++)
            labels[t] = Read(ref bytes) is > 0 and var label ? label - 1 : Row.NoLoss;
        for (var at = 0; runs > 0; runs--)
        {
            at += Read(ref bytes);
            var length = Read(ref bytes);
            ids.AsSpan(at, length).CopyTo(labels.AsSpan(at));
            at += length;
        }
        return new(ids, labels, line);
    }

    private static void Write(IBufferWriter<byte> into, int value)
    {
        var bytes = into.GetSpan(5);
        var (left, count) = ((uint)value, 0);
        for (; left > 0x7f; left >>= 7)
            bytes[count++] = (byte)(left | 0x80);
        bytes[count++] = (byte)left;
        into.Advance(count);
    }

    private static int Read(ref ReadOnlySpan<byte> bytes)
    {
        uint value = 0;
        for (var shift = 0; ; shift += 7)
        {
            var next = bytes[0];
            bytes = bytes[1..];
            value |= (uint)(next & 0x7f) << shift;
            if (next < 0x80)
                return (int)value;
        }
    }
}
