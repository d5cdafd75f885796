using System.IO.Compression;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Hub.Tests;

/// <summary>A hub that answers without end, or with what cannot be, is left in a bounded time and memory.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class ServerLimitsTests
{
    [Theory, InlineData("/revision/"), InlineData("/tree/")]
    public async Task Answer_without_length_and_end_is_refused(string asked)
    {
        using var fixture = new PullFixture();
        fixture.Server.Endless = request => request.Path.Contains(asked, StringComparison.Ordinal);
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("more than an answer can be", fault.Message);
    }

    [Fact]
    public async Task Answer_that_is_too_long_when_decompressed_is_refused()
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            var spaces = Enumerable.Repeat((byte)' ', 1 << 20).ToArray();
            for (var i = 0; i < 40; i++)
                gzip.Write(spaces);
        }
        using var fixture = new PullFixture();
        fixture.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
                ? (packed.ToArray(), "Content-Encoding: gzip\r\n")
                : null;
        Assert.Contains(
            "more than an answer can be",
            (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Message
        );
    }

    [Fact]
    public async Task Listing_whose_next_page_is_itself_is_refused()
    {
        using var fixture = new PullFixture();
        fixture.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
                ? (
                    "[]"u8.ToArray(),
                    $"Link: <{fixture.Server.Url}{request.Path[1..]}{request.Query}>; rel=\"next\"\r\n"
                )
                : null;
        Assert.Contains("without end", (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Message);
        Assert.Equal(
            1,
            fixture.Server.HubRequests.Count(request => request.Path.Contains("/tree/", StringComparison.Ordinal))
        );
    }

    [Fact]
    public async Task Listing_that_always_has_another_page_is_refused()
    {
        using var fixture = new PullFixture();
        var pages = 0;
        fixture.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
                ? (
                    "[]"u8.ToArray(),
                    $"Link: <{fixture.Server.Url}{request.Path[1..]}?cursor={++pages}>; rel=\"next\"\r\n"
                )
                : null;
        Assert.Contains("without end", (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Message);
        Assert.Equal(1_000, pages);
    }

    [Fact]
    public async Task Listing_whose_next_page_names_another_host_is_read_from_the_hub()
    {
        using var fixture = new PullFixture();
        using var other = new HubServer();
        fixture.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
            && !request.Query.Contains("cursor", StringComparison.Ordinal)
                ? ("[]"u8.ToArray(), $"Link: <{other.Url}{request.Path[1..]}?cursor=2>; rel=\"next\"\r\n")
            : request.Query.Contains("cursor", StringComparison.Ordinal) ? (fixture.Server.Listing(), null)
            : null;
        fixture.Same(await fixture.PullAsync());
        Assert.Empty(other.HubRequests);
    }

    [Theory, InlineData("no address"), InlineData("<http://"), InlineData("<>"), InlineData("")]
    public async Task Listing_whose_next_page_has_no_address_is_a_fault(string address)
    {
        using var fixture = new PullFixture();
        fixture.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
                ? ("[]"u8.ToArray(), $"Link: {address}; rel=\"next\"\r\n")
                : null;
        await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
    }

    [Theory]
    [InlineData("config.json", 1L << 30, "size that it cannot have")]
    [InlineData("tokenizer.json", 1L << 40, "size that it cannot have")]
    [InlineData("config.json", -5L, "size that it cannot have")]
    [InlineData("model.safetensors", long.MaxValue, "size that it cannot have")]
    public async Task File_of_an_impossible_size_is_refused_before_the_download(string name, long size, string told)
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Instead = request =>
        {
            if (!request.Path.Contains("/tree/", StringComparison.Ordinal))
                return null;
            var files = JsonSerializer.Deserialize<List<Dictionary<string, object>>>(fixture.Server.Listing())!;
            var file = files.Single(file => file["path"].ToString() == name);
            file["size"] = size;
            if (file.ContainsKey("lfs"))
                file["lfs"] = new { oid = new string('a', 64), size };
            return (JsonSerializer.SerializeToUtf8Bytes(files), null);
        };
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains(told, fault.Message);
        Assert.Contains(name, fault.Message);
    }

    [Fact]
    public async Task Redirect_to_no_web_address_is_refused()
    {
        using var fixture = new PullFixture();
        fixture.Server.Redirect = "ftp://127.0.0.1/x";
        Assert.Contains("no web address", (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Message);
    }
}
