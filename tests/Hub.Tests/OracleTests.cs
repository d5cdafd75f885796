using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Text.Tests;

namespace Memopt.Hub.Tests;

/// <summary>Hugging Face's JavaScript client sees the same hub as we do, and shares a cache with us.</summary>
[Collection(Network.Name)]
public sealed class OracleTests
{
    private static JsonNode Ask(Workbench bench, string what) =>
        Oracle.Ask(
            "hub.mjs",
            JsonSerializer.Serialize(
                new
                {
                    hubUrl = bench.Server.Url.ToString().TrimEnd('/'),
                    repo = "org/model",
                    cacheDir = bench.Settings.HubCache,
                    accessToken = bench.Server.Token,
                }
            ),
            what
        );

    private static Workbench Bench()
    {
        var bench = new Workbench();
        bench.Server.Token = "hf_secret";
        bench.Settings = bench.Settings with { Token = "hf_secret" };
        return bench;
    }

    [Fact]
    public async Task Listing_equals_that_of_the_JavaScript_client()
    {
        using var bench = Bench();
        var theirs = Ask(bench, "list");
        using var http = new HubHttp(bench.Settings, TimeProvider.System, () => 0.5);
        var ours = await new HuggingFace("org/model", bench.Settings, http).ListAsync("main", default);
        Assert.Equal((string?)theirs["sha"], ours.Commit);
        var seen = theirs["files"]!
            .AsArray()
            .Select(file => ((string)file!["path"]!, (long)file["size"]!, (string)file["blob"]!))
            .Order()
            .ToList();
        Assert.Equal(bench.Server.Files.Count, seen.Count);
        Assert.Equal(seen, ours.Files.Values.Select(file => (file.Path, file.Size, file.Blob)).Order());
        Assert.All(
            theirs["files"]!.AsArray(),
            file =>
            {
                // Their fetch follows the redirect of a large file and shows the storage's own ETag, not the hub's.
                var (listed, large) = (
                    ours.Files[(string)file!["path"]!],
                    bench.Server.Files[(string)file["path"]!].Large
                );
                Assert.Equal(listed.Size, (long)file["downloadSize"]!);
                Assert.Equal(large ? $"storage-{listed.Blob[..8]}" : listed.Validator, (string?)file["etag"]);
            }
        );
    }

    [Fact]
    public async Task Cache_made_by_the_JavaScript_client_is_used_as_it_is()
    {
        using var bench = Bench();
        var folder = (string)Ask(bench, "snapshot")["folder"]!;
        var sent = bench.Server.Sent;
        Assert.True(sent > 600_000);
        var model = await bench.PullAsync();
        Assert.Equal(folder, model.Folder);
        Assert.Equal((0, sent), (model.FetchedBytes, bench.Server.Sent));
        foreach (var name in bench.Server.Needed)
            Assert.Equal(bench.Server.Files[name].Bytes, File.ReadAllBytes(Path.Combine(model.Folder, name)));
        bench.Settings = bench.Settings with { Offline = true };
        Assert.Equal(folder, (await bench.PullAsync()).Folder);
        using var hub = new ModelHub(bench.Settings);
        var (count, damaged) = await hub.Cached().VerifyAsync("org/model", bench, default);
        Assert.Equal((bench.Server.Files.Count, 0), (count, damaged.Count));
    }

    [Fact]
    public async Task Cache_made_here_is_used_by_the_JavaScript_client()
    {
        using var bench = Bench();
        var model = await bench.PullAsync();
        bench.Server.HubRequests.Clear();
        bench.Server.StorageRequests.Clear();
        Assert.Equal(model.Folder, (string?)Ask(bench, "snapshot")["folder"]);
        // They take every file of a repository; those that we brought are not asked for again.
        Assert.NotEmpty(bench.Server.StorageRequests);
        foreach (var name in bench.Server.Needed)
        {
            Assert.DoesNotContain(
                bench.Server.HubRequests,
                request => request.Path.EndsWith($"/resolve/{HubServer.Commit}/{name}", StringComparison.Ordinal)
            );
            Assert.DoesNotContain(
                bench.Server.StorageRequests,
                request => request.Path.EndsWith(bench.Server.Files[name].Sha256, StringComparison.Ordinal)
            );
        }
        Assert.Contains(
            bench.Server.HubRequests,
            request => request.Path.EndsWith("/README.md", StringComparison.Ordinal)
        );
    }
}
