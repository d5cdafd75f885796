using Memopt.Trainer.Kernels;
using Memopt.Trainer.Native;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Native;

public sealed class NvrtcTests : IDisposable
{
    private readonly string cache = Directory.CreateTempSubdirectory("memopt").FullName;

    /// <summary>A test that needs the kernel compiler, not a GPU: beside a CUDA libtorch, or in the folder that
    /// MEMOPT_NVRTC names.</summary>
    private sealed class CompilerTheoryAttribute : TheoryAttribute
    {
        public CompilerTheoryAttribute() =>
            Skip = Folder is null ? "needs NVRTC: a CUDA libtorch, or its folder in MEMOPT_NVRTC" : null;
    }

    private static readonly string? Folder =
        Environment.GetEnvironmentVariable("MEMOPT_NVRTC")
        ?? (
            Backend.Load(null, TestBackend.Environment) is { Kind: "cuda" } && Backend.Compiler is { } compiler
                ? Path.GetDirectoryName(compiler.File)
                : null
        );

    [CompilerTheory, InlineData(75), InlineData(80), InlineData(86), InlineData(89), InlineData(90), InlineData(100)]
    public void Kernels_compile_for_every_card_and_type(int capability)
    {
        var compiler = Nvrtc.Find(Folder!, cache)!;
        foreach (var file in Kernel.Files)
        {
            foreach (var type in new[] { ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16 })
                Assert.True(compiler.Compile(file, Kernel.Source(file, type), capability).Length > 500);
        }
        Assert.True(compiler.Supports(capability) && !compiler.Supports(capability + 1000));
        Assert.Equal(Kernel.Files.Count * 3, compiler.Compiled);
        var again = Nvrtc.Find(Folder!, cache)!;
        foreach (var file in Kernel.Files)
            again.Compile(file, Kernel.Source(file, ScalarType.BFloat16), capability);
        Assert.Equal(0, again.Compiled);
    }

    [CompilerTheory, InlineData("}")]
    public void Kernel_that_does_not_compile_reports_the_line(string source)
    {
        var e = Assert.ThrowsAny<Exception>(() => Nvrtc.Find(Folder!, cache)!.Compile("Broken.cu", source, 80));
        Assert.Contains("Broken.cu(1)", e.Message);
    }

    [Fact]
    public void Kernels_are_embedded_in_the_assembly() =>
        Assert.Equal(
            ["AdamW.cu", "CrossEntropy.cu", "Dropout.cu", "Gated.cu", "Nf4.cu", "RmsNorm.cu", "Rope.cu"],
            Kernel.Files
        );

    [Fact]
    public void Cache_file_that_is_torn_or_altered_counts_as_absent()
    {
        var file = Path.Combine(cache, "kernels", "x.cubin");
        var image = Enumerable.Range(0, 5000).Select(i => (byte)i).ToArray();
        Nvrtc.Write(file, image);
        Assert.Equal(image, Nvrtc.Read(file));
        var whole = File.ReadAllBytes(file);
        for (var length = 0; length < whole.Length; length += 97)
        {
            File.WriteAllBytes(file, whole[..length]);
            Assert.Null(Nvrtc.Read(file));
        }
        whole[^1] ^= 1;
        File.WriteAllBytes(file, whole);
        Assert.Null(Nvrtc.Read(file));
    }

    [Fact]
    public void Cache_file_with_many_writers_and_readers_is_never_read_in_part()
    {
        var file = Path.Combine(cache, "kernels", "y.cubin");
        var images = Enumerable.Range(0, 4).Select(n => Enumerable.Repeat((byte)n, 200_000 + n).ToArray()).ToArray();
        Nvrtc.Write(file, images[0]);
        Parallel.For(
            0,
            64,
            i =>
            {
                if (i % 2 == 0)
                    Nvrtc.Write(file, images[i % 4]);
                else if (Nvrtc.Read(file) is var read)
                    Assert.Contains(images, image => read.AsSpan().SequenceEqual(image));
            }
        );
        Assert.Single(Directory.EnumerateFiles(Path.Combine(cache, "kernels")));
    }

    [Fact]
    public void Cache_that_cannot_be_written_is_skipped()
    {
        var blocked = Path.Combine(cache, "file");
        File.WriteAllText(blocked, "");
        Nvrtc.Write(Path.Combine(blocked, "kernels", "z.cubin"), [1]);
        Assert.Null(Nvrtc.Read(Path.Combine(blocked, "kernels", "z.cubin")));
    }

    public void Dispose() => Directory.Delete(cache, recursive: true);
}
