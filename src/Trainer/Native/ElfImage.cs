using System.Buffers.Binary;
using System.Text;

namespace Memopt.Trainer.Native;

/// <summary>A 64-bit little-endian ELF file in memory. Reading beyond its end throws an
/// ArgumentOutOfRangeException.</summary>
internal sealed class ElfImage
{
    private readonly byte[] elf;

    /// <param name="elf">The file's bytes; they are changed in place.</param>
    public ElfImage(byte[] elf)
    {
        this.elf = elf;
        var table = (long)U64(40);
        var (size, count) = (U16(58), U16(60));
        Sections = [.. Enumerable.Range(0, count).Select(i => SectionAt((int)table + i * size))];
    }

    /// <param name="Type">What it holds.</param>
    /// <param name="Offset">Where its bytes are.</param>
    /// <param name="Size">Bytes.</param>
    /// <param name="Link">The index of the section that it refers to.</param>
    /// <param name="Info">Of needs, how many there are.</param>
    public sealed record Section(uint Type, long Offset, long Size, uint Link, uint Info);

    public IReadOnlyList<Section> Sections { get; }

    /// <summary>Whether bytes are such a file, by their beginning.</summary>
    public static bool Is(byte[] bytes) =>
        bytes.Length >= 64 && bytes[0] == 0x7f && bytes[1] == 'E' && bytes[4] == 2 && bytes[5] == 1;

    public ushort U16(long at) => BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan((int)at));

    public uint U32(long at) => BinaryPrimitives.ReadUInt32LittleEndian(elf.AsSpan((int)at));

    public ulong U64(long at) => BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan((int)at));

    public void SetU16(long at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan((int)at), value);

    /// <summary>The text from a place up to the next NUL.</summary>
    public string Text(long at) =>
        Encoding.ASCII.GetString(elf.AsSpan((int)at, Array.IndexOf(elf, (byte)0, (int)at) - (int)at));

    private Section SectionAt(int at) =>
        new(U32(at + 4), (long)U64(at + 24), (long)U64(at + 32), U32(at + 40), U32(at + 44));
}
