using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Text.Tests;

namespace Memopt.Hub.Tests;

/// <summary>Hugging Face's JavaScript client sees the same hub as we do, and shares a cache with us.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class OracleTests
{
    private static JsonNode Ask(PullFixture fixture, string what) =>
        Oracle.Ask(
            "hub.mjs",
            JsonSerializer.Serialize(
                new
                {
                    hubUrl = fixture.Server.Url.ToString().TrimEnd('/'),
                    repo = "org/model",
                    cacheDir = fixture.Settings.HubCache,
                    accessToken = fixture.Server.Token,
                }
            ),
            what
        );

    private static PullFixture Fixture()
    {
        var fixture = new PullFixture();
        fixture.Server.Token = "hf_secret";
        fixture.Settings = fixture.Settings with { Token = "hf_secret" };
        return fixture;
    }

    [Fact]
    public async Task Listing_equals_that_of_the_JavaScript_client()
    {
        using var fixture = Fixture();
        var theirs = Ask(fixture, "list");
        using var http = new HubHttp(fixture.Settings, TimeProvider.System, () => 0.5);
        var ours = await new HuggingFace("org/model", fixture.Settings, http).ListAsync("main", default);
        Assert.Equal((string?)theirs["sha"], ours.Commit);
        var seen = theirs["files"]!
            .AsArray()
            .Select(file => ((string)file!["path"]!, (long)file["size"]!, (string)file["blob"]!))
            .Order()
            .ToList();
        Assert.Equal(fixture.Server.Files.Count, seen.Count);
        Assert.Equal(seen, ours.Files.Values.Select(file => (file.Path, file.Size, file.Blob)).Order());
        Assert.All(
            theirs["files"]!.AsArray(),
            file =>
            {
                // Their fetch follows the redirect of a large file and shows the storage's own ETag, not the hub's.
                var (listed, large) = (
                    ours.Files[(string)file!["path"]!],
                    fixture.Server.Files[(string)file["path"]!].Large
                );
                Assert.Equal(listed.Size, (long)file["downloadSize"]!);
                Assert.Equal(large ? $"storage-{listed.Blob[..8]}" : listed.Validator, (string?)file["etag"]);
            }
        );
    }

    [Fact]
    public async Task Cache_made_by_the_JavaScript_client_is_used_as_it_is()
    {
        using var fixture = Fixture();
        var folder = (string)Ask(fixture, "snapshot")["folder"]!;
        var sent = fixture.Server.Sent;
        Assert.True(sent > 600_000);
        var model = await fixture.PullAsync();
        Assert.Equal(folder, model.Folder);
        Assert.Equal((0, sent), (model.FetchedBytes, fixture.Server.Sent));
        foreach (var name in fixture.Server.Needed)
            Assert.Equal(fixture.Server.Files[name].Bytes, File.ReadAllBytes(Path.Combine(model.Folder, name)));
        fixture.Settings = fixture.Settings with { Offline = true };
        Assert.Equal(folder, (await fixture.PullAsync()).Folder);
        using var hub = new ModelHub(fixture.Settings);
        var (count, damaged) = await hub.Cached().VerifyAsync("org/model", fixture, default);
        Assert.Equal((fixture.Server.Files.Count, 0), (count, damaged.Count));
    }

    [Fact]
    public async Task Cache_made_here_is_used_by_the_JavaScript_client()
    {
        using var fixture = Fixture();
        var model = await fixture.PullAsync();
        fixture.Server.HubRequests.Clear();
        fixture.Server.StorageRequests.Clear();
        Assert.Equal(model.Folder, (string?)Ask(fixture, "snapshot")["folder"]);
        // They take every file of a repository; those that we brought are not asked for again.
        Assert.NotEmpty(fixture.Server.StorageRequests);
        foreach (var name in fixture.Server.Needed)
        {
            Assert.DoesNotContain(
                fixture.Server.HubRequests,
                request => request.Path.EndsWith($"/resolve/{HubServer.Commit}/{name}", StringComparison.Ordinal)
            );
            Assert.DoesNotContain(
                fixture.Server.StorageRequests,
                request => request.Path.EndsWith(fixture.Server.Files[name].Sha256, StringComparison.Ordinal)
            );
        }
        Assert.Contains(
            fixture.Server.HubRequests,
            request => request.Path.EndsWith("/README.md", StringComparison.Ordinal)
        );
    }
}
