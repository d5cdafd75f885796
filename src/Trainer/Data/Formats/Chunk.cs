using System.Buffers;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Memopt.Trainer.Data.Formats;

/// <summary>A row's JSON text within its chunk.</summary>
/// <param name="Start">Its first byte.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Line">Lines below the chunk's first.</param>
internal readonly record struct RowText(int Start, int Length, int Line);

/// <summary>
/// Rows that follow each other in a file, as JSON texts whatever the file's format. Where a file is cut into chunks follows from its content
/// alone, so a chunk is the unit of parallel work and of what a killed run keeps.
/// </summary>
/// <param name="FirstLine">Line of its first row in the file, from 1; for Parquet, the row's number.</param>
/// <param name="Buffer">The texts; from the pool.</param>
/// <param name="Bytes">How much of the buffer is used.</param>
/// <param name="Rows">Where each row is in the buffer.</param>
/// <param name="Faults">Rows that could not be made JSON of.</param>
internal sealed record Chunk(int FirstLine, byte[] Buffer, int Bytes, IReadOnlyList<RowText> Rows, IReadOnlyList<(int Line, string Message)> Faults) : IDisposable
{
    public ReadOnlySpan<byte> this[RowText row] => Buffer.AsSpan(row.Start, row.Length);

    /// <summary>sha256 of the texts and where they lie, so of all that their tokens and lines depend on.</summary>
    public byte[] Hash(ReadOnlySpan<byte> salt)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        sha.AppendData(salt);
        sha.AppendData(Buffer, 0, Bytes);
        sha.AppendData(MemoryMarshal.AsBytes<RowText>(Rows.ToArray()));
        return sha.GetHashAndReset();
    }

    public void Dispose() => ArrayPool<byte>.Shared.Return(Buffer);
}

/// <summary>Gathers rows until they are enough for a chunk.</summary>
internal sealed class ChunkBuilder(int bytes)
{
    private const int MostFaults = 100;

    private List<RowText> rows = [];
    private List<(int, string)> faults = [];
    private byte[] buffer = ArrayPool<byte>.Shared.Rent(bytes + (bytes >> 3));
    private int used, first;

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
