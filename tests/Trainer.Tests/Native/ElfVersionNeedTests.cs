using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Memopt.Core;
using Memopt.Trainer.Native;

namespace Memopt.Trainer.Tests.Native;

/// <summary>On the real library that TorchSharp ships for Linux, which is beside the tests on every system.</summary>
public sealed class ElfVersionNeedTests : IDisposable
{
    private static readonly string shipped = Path.Combine(
        AppContext.BaseDirectory,
        "runtimes",
        "linux-x64",
        "native",
        "libLibTorchSharp.so"
    );

    private readonly string cache = Directory.CreateTempSubdirectory("memopt-elf-").FullName;

    public void Dispose() => Directory.Delete(cache, recursive: true);

    [Fact]
    public void Library_copy_differs_from_the_original_in_one_flag()
    {
        var before = File.ReadAllBytes(shipped);
        var copy = ElfVersionNeed.LoosenedCopy(shipped, cache);
        var after = File.ReadAllBytes(copy);

        Assert.Equal(before, File.ReadAllBytes(shipped));
        Assert.StartsWith(cache, copy);
        var changed = Assert.Single(Enumerable.Range(0, before.Length), i => before[i] != after[i]);
        Assert.Equal((0, 2), (before[changed], after[changed])); // VER_FLG_WEAK
        Assert.Equal(260660, changed); // where readelf -V shows vna_flags of GLIBCXX_3.4.32 in 0.107.0
    }

    [Fact]
    public void Library_copy_is_made_once_and_is_whole_for_the_loser_of_a_race()
    {
        var copies = new string[8];
        Parallel.For(0, copies.Length, i => copies[i] = ElfVersionNeed.LoosenedCopy(shipped, cache));
        Assert.Single(copies.Distinct());
        Assert.Equal(new FileInfo(shipped).Length, new FileInfo(copies[0]).Length);
        Assert.Single(Directory.EnumerateFiles(Path.GetDirectoryName(copies[0])!));

        var written = File.GetLastWriteTimeUtc(copies[0]);
        ElfVersionNeed.LoosenedCopy(shipped, cache);
        Assert.Equal(written, File.GetLastWriteTimeUtc(copies[0]));
    }

    [Fact]
    public void Library_copy_loads_in_a_second_process()
    {
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture != Architecture.X64)
            return; // the file is a Linux one
        // libtorch is in this process, so the copy's needs are met; without the flag an old libstdc++ refuses it.
        Assert.True(NativeLibrary.TryLoad(ElfVersionNeed.LoosenedCopy(shipped, cache), out var handle));
        NativeLibrary.Free(handle);
    }

    [Fact]
    public void Library_that_binds_a_symbol_of_the_version_is_refused()
    {
        var elf = File.ReadAllBytes(shipped);
        var (version, unused) = Unused(elf);
        // Give another undefined symbol, one that a relocation binds, the version of the unused one.
        var other = Relocated(elf).First(symbol => symbol != unused);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(Section(elf, 0x6fffffff).Offset + 2 * other), version);
        Assert.Contains("it uses", Assert.Throws<UserFault>(() => ElfVersionNeed.Loosen(elf, "library")).Message);
    }

    [Fact]
    public void Library_whose_symbol_of_the_version_gains_a_relocation_is_refused()
    {
        var elf = File.ReadAllBytes(shipped);
        var (_, unused) = Unused(elf);
        var info = Section(elf, 4).Offset + 8; // r_info of the first relocation: symbol index above, type below
        BinaryPrimitives.WriteUInt32LittleEndian(elf.AsSpan(info + 4), (uint)unused);
        Assert.Contains(
            "_ZSt21ios_base_library_initv",
            Assert.Throws<UserFault>(() => ElfVersionNeed.Loosen(elf, "library")).Message
        );
    }

    [Fact]
    public void File_that_is_no_ELF_is_refused_and_one_without_the_version_stays_unchanged()
    {
        Assert.Contains(
            "not a 64-bit",
            Assert.Throws<UserFault>(() => ElfVersionNeed.Loosen(new byte[128], "zeros")).Message
        );
        Assert.Contains(
            "cannot be read",
            Assert.Throws<UserFault>(() => ElfVersionNeed.Loosen(File.ReadAllBytes(shipped)[..100_000], "half")).Message
        );

        var other = File.ReadAllBytes(shipped);
        var name = Encoding.ASCII.GetBytes(ElfVersionNeed.Version + "\0");
        var at = other.AsSpan().IndexOf(name);
        Assert.True(at > 0);
        other[at + name.Length - 2] = (byte)'1'; // GLIBCXX_3.4.31
        Assert.Contains("does not need", Assert.Throws<UserFault>(() => ElfVersionNeed.Loosen(other, "other")).Message);
    }

    [Fact]
    public void Library_that_is_refused_leaves_no_copy()
    {
        var broken = Path.Combine(cache, "broken.so");
        File.WriteAllText(broken, "no library");
        Assert.Throws<UserFault>(() => ElfVersionNeed.LoosenedCopy(broken, Path.Combine(cache, "out")));
        Assert.False(Directory.Exists(Path.Combine(cache, "out")));
    }

    // A reader of its own, so that the tests do not take the product's word for where things are.
    private static (int Offset, int Size, int Link) Section(byte[] elf, uint type)
    {
        var (table, entry, count) = (
            BitConverter.ToInt32(elf, 40),
            BitConverter.ToUInt16(elf, 58),
            BitConverter.ToUInt16(elf, 60)
        );
        var at = Enumerable
            .Range(0, count)
            .Select(i => table + i * entry)
            .First(at => BitConverter.ToUInt32(elf, at + 4) == type);
        return (
            BitConverter.ToInt32(elf, at + 24),
            BitConverter.ToInt32(elf, at + 32),
            BitConverter.ToInt32(elf, at + 40)
        );
    }

    private static (ushort Version, int Symbol) Unused(byte[] elf)
    {
        var symbols = Section(elf, 11);
        var strings = BitConverter.ToInt32(
            elf,
            BitConverter.ToInt32(elf, 40) + symbols.Link * BitConverter.ToUInt16(elf, 58) + 24
        );
        var name = Encoding.ASCII.GetBytes("_ZSt21ios_base_library_initv\0");
        var symbol = Enumerable
            .Range(0, symbols.Size / 24)
            .First(i => elf.AsSpan(strings + BitConverter.ToInt32(elf, symbols.Offset + 24 * i)).StartsWith(name));
        return (BitConverter.ToUInt16(elf, Section(elf, 0x6fffffff).Offset + 2 * symbol), symbol);
    }

    private static IEnumerable<int> Relocated(byte[] elf)
    {
        var relocations = Section(elf, 4);
        return Enumerable
            .Range(0, relocations.Size / 24)
            .Select(i => BitConverter.ToInt32(elf, relocations.Offset + 24 * i + 12))
            .Where(symbol => symbol != 0);
    }
}
