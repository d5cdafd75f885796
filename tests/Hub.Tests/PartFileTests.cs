namespace Memopt.Hub.Tests;

/// <summary>What an unfinished file keeps, and when it is not trusted.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class PartFileTests : IDisposable
{
    private readonly string path = Path.GetTempFileName();

    public void Dispose() => File.Delete(path);

    [Fact]
    public void Part_file_continues_in_another_process()
    {
        using (var part = PartFile.Open(path, "etag", 100, 40))
        {
            Assert.Equal(3, part.Parts);
            part.Write(1, 0, new byte[10]);
            part.Write(1, 20, new byte[10]); // behind a gap: stored, not counted
            part.Write(1, 5, new byte[15]); // over the end: counted to its own end
            part.Write(2, 0, new byte[20]);
        }
        using var next = PartFile.Open(path, "etag", 100, 64);
        Assert.Equal((3, 40, 0, 20, 20), (next.Parts, next.Resumed, next.Done(0), next.Done(1), next.Done(2)));
        Assert.Equal(0, next.Prefix);
        next.Write(0, 0, new byte[40]);
        Assert.Equal(60, next.Prefix);
        Assert.Equal(80, PartFile.Stored(path, "etag", 100));
    }

    [Theory]
    [InlineData("other", 100)]
    [InlineData("etag", 101)]
    [InlineData("etag", 60)]
    public void Part_file_of_other_content_restarts(string identity, long size)
    {
        using (var part = PartFile.Open(path, "etag", 100, 40))
            part.Write(0, 0, new byte[40]);
        Assert.Equal(0, PartFile.Stored(path, identity, size));
        using var next = PartFile.Open(path, identity, size, 40);
        Assert.Equal(0, next.Resumed);
    }

    [Fact]
    public void Part_file_truncated_anywhere_restarts_or_is_whole()
    {
        using (var part = PartFile.Open(path, "etag", 100, 40))
            part.Write(0, 0, new byte[40]);
        var whole = File.ReadAllBytes(path);
        for (var length = 0; length < whole.Length; length++)
        {
            File.WriteAllBytes(path, whole[..length]);
            using var next = PartFile.Open(path, "etag", 100, 40);
            // Only Finish cuts to exactly the size, and only after the last byte.
            Assert.Equal(length == 100 ? 100 : 0, next.Resumed);
        }
    }

    [Fact]
    public async Task Download_killed_between_cut_and_rename_refetches_nothing()
    {
        using var fixture = new PullFixture(shards: 1);
        var file = fixture.Server.Files["model.safetensors"];
        var blobs = Path.Combine(fixture.Root, "hub", "models--org--model", "blobs");
        Directory.CreateDirectory(blobs);
        File.WriteAllBytes(Path.Combine(blobs, file.Sha256 + ".part"), file.Bytes);
        var model = await fixture.PullAsync();
        fixture.Same(model);
        Assert.Equal(300_000, model.ResumedBytes);
        Assert.Empty(fixture.Server.StorageRequests);
    }
}
