using System.Collections.Concurrent;
using System.Diagnostics;
using Memopt.Core;

namespace Memopt.Hub.Tests;

/// <summary>What lies in the cache, and who may use it when.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class CacheTests
{
    private static string Folder(PullFixture fixture) => Path.Combine(fixture.Root, "hub", "models--org--model");

    [Fact]
    public async Task Cache_that_cannot_be_written_names_the_variable_to_set()
    {
        using var fixture = new PullFixture();
        fixture.Settings = fixture.Settings with { HubCache = "/sys/memopt" }; // where nobody makes folders
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Equal("The cache /sys/memopt cannot be written.", fault.Message);
        Assert.Contains("HF_HOME", fault.Next);
    }

    [Fact]
    public async Task Cache_layout_equals_that_of_huggingface_hub()
    {
        using var fixture = new PullFixture();
        var model = await fixture.PullAsync();
        Assert.Equal(HubServer.Commit, File.ReadAllText(Path.Combine(Folder(fixture), "refs", "main")));
        Assert.Equal(Path.Combine(Folder(fixture), "snapshots", HubServer.Commit), model.Folder);
        foreach (var name in fixture.Server.Needed)
            Assert.Equal(
                $"../../blobs/{fixture.Server.Files[name].ETag}",
                new FileInfo(Path.Combine(model.Folder, name)).LinkTarget
            );
        Assert.Equal(
            fixture.Server.Needed.Select(name => fixture.Server.Files[name].ETag).Order(StringComparer.Ordinal),
            Directory
                .EnumerateFiles(Path.Combine(Folder(fixture), "blobs"))
                .Select(Path.GetFileName)
                .Order(StringComparer.Ordinal)
        );
        Assert.Contains(
            model.Files,
            file => file.Hash == "sha256:" + fixture.Server.Files["model-00001-of-00002.safetensors"].Sha256
        );
        Assert.Contains(model.Files, file => file.Hash == "git-sha1:" + fixture.Server.Files["config.json"].GitSha1);
    }

    [Fact]
    public async Task Model_in_the_cache_is_not_fetched_again_and_by_commit_needs_no_server()
    {
        using var fixture = new PullFixture();
        await fixture.PullAsync();
        var sent = fixture.Server.Sent;
        Assert.Equal(0, (await fixture.PullAsync()).FetchedBytes);
        Assert.Equal(sent, fixture.Server.Sent);
        fixture.Server.HubRequests.Clear();
        await fixture.PullAsync(revision: HubServer.Commit);
        Assert.Empty(fixture.Server.HubRequests);
        // A new commit with one new file brings that file alone.
        fixture.Server.Head = new string('a', 40);
        fixture.Server.Files["config.json"] = new("{ \"model_type\": \"qwen2\" }"u8.ToArray(), Large: false);
        var next = await fixture.PullAsync();
        fixture.Same(next);
        Assert.Equal(fixture.Server.Files["config.json"].Bytes.Length, next.FetchedBytes);
        Assert.Equal(fixture.Server.Head, File.ReadAllText(Path.Combine(Folder(fixture), "refs", "main")));
    }

    [Fact]
    public async Task Offline_pull_uses_the_cache_or_names_what_is_missing()
    {
        using var fixture = new PullFixture();
        var online = fixture.Settings;
        fixture.Settings = online with { Offline = true };
        Assert.Contains("everything", (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Found);
        fixture.Settings = online;
        var model = await fixture.PullAsync();
        fixture.Server.HubRequests.Clear();
        fixture.Settings = online with { Offline = true };
        Assert.Equal(model.Folder, (await fixture.PullAsync()).Folder);
        File.Delete(
            Path.Combine(Folder(fixture), "blobs", fixture.Server.Files["model-00002-of-00002.safetensors"].ETag)
        );
        Assert.Contains(
            "model-00002-of-00002.safetensors",
            (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Found
        );
        Assert.Empty(fixture.Server.HubRequests);
    }

    [Fact]
    public async Task Disk_that_is_too_small_is_refused_before_the_first_byte_of_weights()
    {
        using var fixture = new PullFixture { FreeBytes = _ => (64 << 20) + 500_000 };
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("does not fit on the disk", fault.Message);
        Assert.Empty(fixture.Server.StorageRequests);
        fixture.FreeBytes = _ => (64 << 20) + 600_000;
        fixture.Same(await fixture.PullAsync());
    }

    [Fact]
    public async Task Pulls_at_the_same_time_share_one_download()
    {
        using var fixture = new PullFixture(shards: 6);
        // No weights before one has met the other.
        var met = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        fixture.Noted = note => _ = note.Contains("another process") && met.TrySetResult();
        fixture.Server.Gate = request =>
            request.Path.StartsWith("/blob/", StringComparison.Ordinal)
                ? Task.WhenAny(met.Task, Task.Delay(TimeSpan.FromMinutes(2)))
                : Task.CompletedTask;
        var both = await Task.WhenAll(fixture.PullAsync(), fixture.PullAsync());
        fixture.Same(both[0]);
        var size = fixture.Server.Needed.Sum(name => fixture.Server.Files[name].Bytes.LongLength);
        Assert.Equal(size, both.Sum(model => model.FetchedBytes));
        Assert.Equal(size, fixture.Server.Sent);
        Assert.Contains(fixture.Notes, note => note.Contains("another process"));
    }

    [Fact]
    public async Task Pull_waits_while_another_program_holds_the_lock()
    {
        if (!OperatingSystem.IsLinux())
            return;
        using var fixture = new PullFixture(shards: 1);
        var file = Path.Combine(
            fixture.Root,
            "hub",
            ".locks",
            "models--org--model",
            fixture.Server.Files["model.safetensors"].ETag + ".lock"
        );
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        using var holder = Process.Start(
            new ProcessStartInfo("flock", [file, "sh", "-c", "echo held; cat"])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
            }
        )!;
        Assert.Equal("held", await holder.StandardOutput.ReadLineAsync());
        var pull = fixture.PullAsync();
        while (!fixture.Notes.Any(note => note.Contains("another process")) && !pull.IsCompleted)
            await Task.Delay(10);
        Assert.False(pull.IsCompleted);
        holder.StandardInput.Close();
        fixture.Same(await pull);
    }

    [Fact]
    public async Task Progress_counts_resumed_bytes_and_ends_at_the_size()
    {
        using var fixture = new PullFixture(shards: 1);
        using var stop = new CancellationTokenSource();
        fixture.Settings = fixture.Settings with { Connections = 1 };
        fixture.Advanced = (file, done, size, _) =>
        {
            if (file == "model.safetensors" && done > 100_000 && done < size)
                stop.Cancel();
        };
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => fixture.PullAsync(stop: stop.Token));
        var rows = new ConcurrentQueue<(long Done, long Resumed)>();
        fixture.Advanced = (file, done, _, resumed) =>
        {
            if (file == "model.safetensors")
                rows.Enqueue((done, resumed));
        };
        var model = await fixture.PullAsync();
        Assert.InRange(model.ResumedBytes, 100_000, 299_999);
        Assert.All(rows, row => Assert.Equal(model.ResumedBytes, row.Resumed));
        Assert.Equal(300_000, rows.Last().Done);
        Assert.True(rows.Select(row => row.Done).SequenceEqual(rows.Select(row => row.Done).Order()));
    }

    [Fact]
    public async Task Verify_finds_a_flipped_bit_and_the_next_pull_repairs_it()
    {
        using var fixture = new PullFixture();
        var model = await fixture.PullAsync();
        await fixture.PullAsync($"{fixture.Server.Url}files");
        using var hub = new ModelHub(fixture.Settings) { FreeBytes = _ => long.MaxValue };
        var (count, damaged) = await hub.Cached().VerifyAsync(null, fixture, default);
        Assert.Equal((fixture.Server.Needed.Count() * 2, 0), (count, damaged.Count));
        foreach (var folder in new[] { fixture.Settings.HubCache, fixture.Settings.OwnCache })
        {
            var victim = Directory
                .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                .First(file => new FileInfo(file) is { Length: 300_000, LinkTarget: null });
            var bytes = File.ReadAllBytes(victim);
            bytes[12345] ^= 4;
            File.WriteAllBytes(victim, bytes);
        }
        Assert.Equal(2, (await hub.Cached().VerifyAsync(null, fixture, default)).Damaged.Count);
        Assert.Equal(300_000, (await fixture.PullAsync()).FetchedBytes);
        fixture.Same(model);
    }

    [Fact]
    public async Task Remove_deletes_only_unshared_content()
    {
        using var fixture = new PullFixture();
        await fixture.PullAsync();
        fixture.Server.Head = new string('a', 40);
        fixture.Server.Files["config.json"] = new("{ \"model_type\": \"qwen2\" }"u8.ToArray(), Large: false);
        var kept = await fixture.PullAsync();
        using var hub = new ModelHub(fixture.Settings) { FreeBytes = _ => long.MaxValue };
        var listed = Assert.Single(hub.Cached().List());
        Assert.Equal(("org/model", 2), (listed.Name, listed.Revisions.Count));
        Assert.Equal(["main"], listed.Revisions.Single(revision => revision.Commit == fixture.Server.Head).Refs);
        Assert.Equal("{ \"model_type\": \"llama\" }".Length, hub.Cached().Remove("org/model", HubServer.Commit));
        fixture.Same(kept);
        hub.Cached().Remove("org/model", null);
        Assert.Empty(hub.Cached().List());
        Assert.Throws<UserFault>(() => hub.Cached().Remove("org/model", null));
    }

    [Fact]
    public async Task Model_that_is_complete_needs_no_lock_and_no_write()
    {
        using var fixture = new PullFixture();
        var first = await fixture.PullAsync();
        Directory.Delete(Path.Combine(fixture.Settings.HubCache, ".locks"), recursive: true);
        File.WriteAllText(Path.Combine(fixture.Settings.HubCache, ".locks"), "no folder can be made here");
        Assert.Equal(0, (await fixture.PullAsync()).FetchedBytes);
        fixture.Same(first);
    }
}
