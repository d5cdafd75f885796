using System.Buffers;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Memopt.Trainer.Data.Formats;

/// <summary>A row's JSON text within its chunk.</summary>
/// <param name="Start">Its first byte.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Line">Lines below the chunk's first.</param>
internal readonly record struct RowText(int Start, int Length, int Line);

/// <summary>Rows that follow each other in a file, as JSON texts whatever the file's format. Where a file is cut into
/// chunks follows from its content alone, so a chunk is the unit of parallel work and of what a killed run keeps.
/// </summary>
/// <param name="FirstLine">Line of its first row in the file, from 1; for Parquet, the row's number.</param>
/// <param name="Buffer">The texts; from the pool.</param>
/// <param name="Bytes">How much of the buffer is used.</param>
/// <param name="Rows">Where each row is in the buffer.</param>
/// <param name="Faults">Rows that could not be made JSON of.</param>
internal sealed record Chunk(
    int FirstLine,
    byte[] Buffer,
    int Bytes,
    IReadOnlyList<RowText> Rows,
    IReadOnlyList<(int Line, string Message)> Faults
) : IDisposable
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
