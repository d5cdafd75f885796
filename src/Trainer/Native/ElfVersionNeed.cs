using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Memopt.Core;

namespace Memopt.Trainer.Native;

/// <summary>TorchSharp 0.107's Linux library asks for GLIBCXX_3.4.32 though nothing in it is bound to that version, so
/// systems with an older libstdc++ refuse it. A private copy with that one need marked weak loads; the shipped file is
/// never touched.
/// </summary>
internal static class ElfVersionNeed
{
    /// <summary>The version that is asked for in vain.</summary>
    public const string Version = "GLIBCXX_3.4.32";
    private const uint SectionVerneed = 0x6ffffffe,
        SectionVersym = 0x6fffffff,
        SectionDynsym = 11,
        SectionRela = 4;
    private const ushort Weak = 2;

    // The one symbol of that version the library names: a hook that libstdc++ 13's headers pull in, never bound and
    // never called.
    private const string Unused = "_ZSt21ios_base_library_initv";

    /// <summary>Path of a copy of <paramref name="library"/> that loads on an older libstdc++; made once, safe for
    /// several processes.</summary>
    public static string LoosenedCopy(string library, string cache)
    {
        var bytes = File.ReadAllBytes(library);
        var folder = Path.Combine(cache, "native", Convert.ToHexStringLower(SHA256.HashData(bytes))[..16]);
        var copy = Path.Combine(folder, Path.GetFileName(library));
        Loosen(bytes, library);
        PrivateFolder.Make(folder);
        if (File.Exists(copy) && File.ReadAllBytes(copy).AsSpan().SequenceEqual(bytes))
            return copy;
        var staged = copy + "." + Guid.NewGuid().ToString("N");
        File.WriteAllBytes(staged, bytes);
        File.Move(staged, copy, overwrite: true);
        return copy;
    }

    /// <summary>Marks the need for the version weak, after checking that no relocation binds a symbol of it.</summary>
    internal static void Loosen(byte[] elf, string name)
    {
        try
        {
            if (elf.Length < 64 || elf[0] != 0x7f || elf[1] != 'E' || elf[4] != 2 || elf[5] != 1)
                throw Refuse("it is not a 64-bit little-endian ELF file");
            var sections = Sections(elf);
            var needs = sections.FirstOrDefault(s => s.Type == SectionVerneed) ?? throw Refuse("it needs no versions");
            var texts = sections[(int)needs.Link];
            var flags = -1;
            ushort index = 0;
            for (long need = needs.Offset, left = needs.Info; left > 0; left--)
            {
                var (count, aux, next) = (U16(need + 2), U32(need + 8), U32(need + 12));
                for (long entry = need + aux; count > 0; count--, entry += U32(entry + 12))
                {
                    if (Text(texts.Offset + U32(entry + 8)) == Version)
                        (flags, index) = ((int)entry + 4, U16(entry + 6));
                    if (count > 1 && U32(entry + 12) == 0)
                        throw Refuse("a version entry is its own successor");
                }
                if (left > 1 && next == 0)
                    throw Refuse("a version need is its own successor");
                need += next;
            }
            if (flags < 0)
                throw Refuse($"it does not need {Version}, so something else keeps it from loading");

            var symbols = sections.First(s => s.Type == SectionDynsym);
            var versions = sections.First(s => s.Type == SectionVersym);
            var names = sections[(int)symbols.Link];
            var bound = sections
                .Where(s => s.Type == SectionRela)
                .SelectMany(s =>
                    Enumerable.Range(0, (int)(s.Size / 24)).Select(i => (int)(U64(s.Offset + 24L * i + 8) >> 32))
                )
                .ToHashSet();
            for (var i = 0; i < (int)(symbols.Size / 24); i++)
            {
                if ((U16(versions.Offset + 2L * i) & 0x7fff) != index)
                    continue;
                var symbol = Text(names.Offset + U32(symbols.Offset + 24L * i));
                if (symbol != Unused || bound.Contains(i))
                    throw Refuse($"it uses {symbol} of {Version}");
            }
            BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(flags), (ushort)(U16(flags) | Weak));
        }
        catch (Exception e)
            when (e is ArgumentOutOfRangeException or InvalidOperationException or IndexOutOfRangeException)
        {
            throw Refuse($"its sections cannot be read ({e.Message})");
        }

        ushort U16(long at) => BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan((int)at));
        uint U32(long at) => BinaryPrimitives.ReadUInt32LittleEndian(elf.AsSpan((int)at));
        ulong U64(long at) => BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan((int)at));
        string Text(long at) =>
            Encoding.ASCII.GetString(elf.AsSpan((int)at, Array.IndexOf(elf, (byte)0, (int)at) - (int)at));
        UserFault Refuse(string why) =>
            new(
                $"{name} does not load here: {why}.",
                found: "a libstdc++ older than the library was built with",
                next: "use a system with GCC 13's libstdc++ or newer (Debian 13, Ubuntu 24.04)"
            )
            {
                Failed = true,
            };
    }

    private sealed record Section(uint Type, long Offset, long Size, uint Link, uint Info);

    private static List<Section> Sections(byte[] elf)
    {
        var table = (int)BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(40));
        var (size, count) = (
            BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(58)),
            BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(60))
        );
        return
        [
            .. Enumerable
                .Range(0, count)
                .Select(i =>
                {
                    var at = elf.AsSpan(table + i * size);
                    return new Section(
                        BinaryPrimitives.ReadUInt32LittleEndian(at[4..]),
                        (long)BinaryPrimitives.ReadUInt64LittleEndian(at[24..]),
                        (long)BinaryPrimitives.ReadUInt64LittleEndian(at[32..]),
                        BinaryPrimitives.ReadUInt32LittleEndian(at[40..]),
                        BinaryPrimitives.ReadUInt32LittleEndian(at[44..])
                    );
                }),
        ];
    }
}
