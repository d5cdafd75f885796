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
        var folder = Path.Combine(cache, "native", Sha256.Of(bytes)[..16]);
        var copy = Path.Combine(folder, Path.GetFileName(library));
        Loosen(bytes, library);
        PrivateFolder.Make(folder);
        if (File.Exists(copy) && File.ReadAllBytes(copy).AsSpan().SequenceEqual(bytes))
            return copy;
        using var staged = StagedPath.Beside(copy);
        File.WriteAllBytes(staged.Path, bytes);
        staged.MoveTo(copy);
        return copy;
    }

    /// <summary>Marks the need for the version weak, after checking that no relocation binds a symbol of it.</summary>
    internal static void Loosen(byte[] elf, string name)
    {
        try
        {
            if (!ElfImage.Is(elf))
                throw Refuse(name, "it is not a 64-bit little-endian ELF file");
            var image = new ElfImage(elf);
            var (flags, index) = FindNeed(image, name);
            CheckUnused(image, index, name);
            image.SetU16(flags, (ushort)(image.U16(flags) | Weak));
        }
        catch (Exception e)
            when (e is ArgumentOutOfRangeException or InvalidOperationException or IndexOutOfRangeException)
        {
            throw Refuse(name, $"its sections cannot be read ({e.Message})");
        }
    }

    /// <summary>Where the flags of the need stand, and the index that symbols of the version have.</summary>
    private static (int Flags, ushort Index) FindNeed(ElfImage elf, string name)
    {
        var needs =
            elf.Sections.FirstOrDefault(s => s.Type == SectionVerneed) ?? throw Refuse(name, "it needs no versions");
        var texts = elf.Sections[(int)needs.Link];
        var (flags, index) = (-1, (ushort)0);
        for (long need = needs.Offset, left = needs.Info; left > 0; left--)
        {
            var (count, aux, next) = (elf.U16(need + 2), elf.U32(need + 8), elf.U32(need + 12));
            for (long entry = need + aux; count > 0; count--, entry += elf.U32(entry + 12))
            {
                if (elf.Text(texts.Offset + elf.U32(entry + 8)) == Version)
                    (flags, index) = ((int)entry + 4, elf.U16(entry + 6));
                if (count > 1 && elf.U32(entry + 12) == 0)
                    throw Refuse(name, "a version entry is its own successor");
            }
            if (left > 1 && next == 0)
                throw Refuse(name, "a version need is its own successor");
            need += next;
        }
        return flags < 0
            ? throw Refuse(name, $"it does not need {Version}, so something else keeps it from loading")
            : (flags, index);
    }

    private static void CheckUnused(ElfImage elf, ushort index, string name)
    {
        var symbols = elf.Sections.First(s => s.Type == SectionDynsym);
        var versions = elf.Sections.First(s => s.Type == SectionVersym);
        var names = elf.Sections[(int)symbols.Link];
        var bound = elf
            .Sections.Where(s => s.Type == SectionRela)
            .SelectMany(s =>
                Enumerable.Range(0, (int)(s.Size / 24)).Select(i => (int)(elf.U64(s.Offset + 24L * i + 8) >> 32))
            )
            .ToHashSet();
        for (var i = 0; i < (int)(symbols.Size / 24); i++)
        {
            if ((elf.U16(versions.Offset + 2L * i) & 0x7fff) != index)
                continue;
            var symbol = elf.Text(names.Offset + elf.U32(symbols.Offset + 24L * i));
            if (symbol != Unused || bound.Contains(i))
                throw Refuse(name, $"it uses {symbol} of {Version}");
        }
    }

    private static UserFault Refuse(string name, string why) =>
        new(
            $"{name} does not load here: {why}.",
            found: "a libstdc++ older than the library was built with",
            next: "use a system with GCC 13's libstdc++ or newer (Debian 13, Ubuntu 24.04)"
        )
        {
            Failed = true,
        };
}
