using System.Runtime.InteropServices;
using Memopt.Trainer.Native;

namespace Memopt.Trainer.Tests.Native;

[Collection(ExclusiveCollection.Name)]
public sealed class HostMemoryTests : IDisposable
{
    private readonly string group = Directory.CreateTempSubdirectory("memopt-group-").FullName;

    public void Dispose() => Directory.Delete(group, recursive: true);

    [Fact]
    public unsafe void Process_memory_grows_by_touched_bytes()
    {
        // Not an array: a collection that it begins may give back as much of what other tests have left.
        GC.Collect();
        var before = HostMemory.ResidentBytes();
        var block = (byte*)NativeMemory.Alloc(256 << 20);
        new Span<byte>(block, 256 << 20).Fill(1);
        var after = HostMemory.ResidentBytes();
        Assert.True(HostMemory.PeakResidentBytes() >= before + (200L << 20));
        NativeMemory.Free(block);
        Assert.InRange(after - before, 200L << 20, 1L << 40);
    }

    [Fact]
    public void Free_memory_is_positive_and_below_a_pebibyte() =>
        Assert.InRange(HostMemory.FreeBytes(), 1 << 20, 1L << 50);

    [Fact]
    public void Container_limit_leaves_unused_memory_and_cached_files()
    {
        File.WriteAllText(Path.Combine(group, "memory.max"), "1000000\n");
        File.WriteAllText(Path.Combine(group, "memory.current"), "700000\n");
        Assert.Equal(300_000, HostMemory.ContainerFreeBytes(group));
        File.WriteAllText(Path.Combine(group, "memory.stat"), "anon 5\ninactive_file 50000\n");
        Assert.Equal(350_000, HostMemory.ContainerFreeBytes(group));
        File.WriteAllText(Path.Combine(group, "memory.max"), "max\n");
        Assert.Null(HostMemory.ContainerFreeBytes(group));
    }

    [Fact]
    public void Control_groups_of_version_1_are_read()
    {
        Directory.CreateDirectory(Path.Combine(group, "memory"));
        File.WriteAllText(Path.Combine(group, "memory", "memory.limit_in_bytes"), "900");
        File.WriteAllText(Path.Combine(group, "memory", "memory.usage_in_bytes"), "400");
        Assert.Equal(500, HostMemory.ContainerFreeBytes(group));
    }

    [Fact]
    public void Cuda_queries_answer_with_and_without_a_GPU()
    {
        var some = Cuda.DeviceCount() > 0;
        Assert.Equal(some, Cuda.DeviceName() is not null);
        Assert.Equal(some && Cuda.Memory() is not null, Cuda.UsedBytes() > 0);
    }
}
