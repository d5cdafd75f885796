namespace Memopt.Core.Tests;

public sealed class Sha256Tests : IDisposable
{
    // FIPS 180-2, appendix B.1.
    private const string OfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    private readonly string file = Path.GetTempFileName();

    public void Dispose() => File.Delete(file);

    [Fact]
    public void Sha256_of_bytes_text_stream_and_file_is_equal()
    {
        File.WriteAllText(file, "abc");
        using var stream = new MemoryStream("-abc"u8.ToArray()) { Position = 1 };
        Assert.Equal(
            [OfAbc, OfAbc, OfAbc, OfAbc],
            [Sha256.Of("abc"u8), Sha256.OfText("abc"), Sha256.OfStream(stream), Sha256.OfFile(file)]
        );
    }

    [Fact]
    public void Sha256_of_a_file_of_several_reads_covers_all_of_it()
    {
        var bytes = new byte[1_000_003];
        new Random(3).NextBytes(bytes);
        File.WriteAllBytes(file, bytes);
        Assert.Equal(Sha256.Of(bytes), Sha256.OfFile(file));
    }

    [Fact]
    public void Sha256_of_a_file_ends_when_it_is_cancelled()
    {
        File.WriteAllText(file, "abc");
        Assert.Throws<OperationCanceledException>(() => Sha256.OfFile(file, new CancellationToken(canceled: true)));
    }
}
