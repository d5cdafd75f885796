using System.Buffers;

namespace Memopt.Trainer.Data.Formats;

/// <summary>Gathers rows until they are enough for a chunk.</summary>
internal sealed class ChunkBuilder(int bytes)
{
    private const int MostFaults = 100;

    private List<RowText> rows = [];
    private List<(int, string)> faults = [];
    private byte[] buffer = ArrayPool<byte>.Shared.Rent(bytes + (bytes >> 3));
    private int used,
        first;

    /// <summary>Whether a chunk should be taken.</summary>
    public bool Full => used >= bytes || faults.Count >= MostFaults;

    public bool Empty => rows.Count == 0 && faults.Count == 0;

    public void Add(ReadOnlySpan<byte> json, int line)
    {
        if (buffer.Length - used < json.Length)
        {
            var larger = ArrayPool<byte>.Shared.Rent(checked(Math.Max(used + json.Length, buffer.Length * 2)));
            buffer.AsSpan(0, used).CopyTo(larger);
            ArrayPool<byte>.Shared.Return(buffer);
            buffer = larger;
        }
        json.CopyTo(buffer.AsSpan(used));
        if (Empty)
            first = line;
        rows.Add(new(used, json.Length, line - first));
        used += json.Length;
    }

    /// <summary>A row of the file that cannot be read.</summary>
    public void Fault(int line, string message)
    {
        if (Empty)
            first = line;
        faults.Add((line, message));
    }

    public Chunk Take()
    {
        var chunk = new Chunk(first, buffer, used, rows, faults);
        (rows, faults, buffer, used) = ([], [], ArrayPool<byte>.Shared.Rent(bytes + (bytes >> 3)), 0);
        return chunk;
    }
}
