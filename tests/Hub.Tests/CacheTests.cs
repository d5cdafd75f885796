using System.Collections.Concurrent;
using System.Diagnostics;
using Memopt.Core;

namespace Memopt.Hub.Tests;

/// <summary>What lies in the cache, and who may use it when.</summary>
[Collection(Network.Name)]
public sealed class CacheTests
{
    private static string Folder(Workbench bench) => Path.Combine(bench.Root, "hub", "models--org--model");

    [Fact]
    public async Task Cache_that_cannot_be_written_names_the_variable_to_set()
    {
        using var bench = new Workbench();
        bench.Settings = bench.Settings with { HubCache = "/sys/memopt" }; // where nobody makes folders
        var fault = await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync());
        Assert.Equal("The cache /sys/memopt cannot be written.", fault.Message);
        Assert.Contains("HF_HOME", fault.Next);
    }

    [Fact]
    public async Task Cache_layout_equals_that_of_huggingface_hub()
    {
        using var bench = new Workbench();
        var model = await bench.PullAsync();
        Assert.Equal(HubServer.Commit, File.ReadAllText(Path.Combine(Folder(bench), "refs", "main")));
        Assert.Equal(Path.Combine(Folder(bench), "snapshots", HubServer.Commit), model.Folder);
        foreach (var name in bench.Server.Needed)
            Assert.Equal(
                $"../../blobs/{bench.Server.Files[name].ETag}",
                new FileInfo(Path.Combine(model.Folder, name)).LinkTarget
            );
        Assert.Equal(
            bench.Server.Needed.Select(name => bench.Server.Files[name].ETag).Order(StringComparer.Ordinal),
            Directory
                .EnumerateFiles(Path.Combine(Folder(bench), "blobs"))
                .Select(Path.GetFileName)
                .Order(StringComparer.Ordinal)
        );
        Assert.Contains(
            model.Files,
            file => file.Hash == "sha256:" + bench.Server.Files["model-00001-of-00002.safetensors"].Sha256
        );
        Assert.Contains(model.Files, file => file.Hash == "git-sha1:" + bench.Server.Files["config.json"].GitSha1);
    }

    [Fact]
    public async Task Model_in_the_cache_is_not_fetched_again_and_by_commit_needs_no_server()
    {
        using var bench = new Workbench();
        await bench.PullAsync();
        var sent = bench.Server.Sent;
        Assert.Equal(0, (await bench.PullAsync()).FetchedBytes);
        Assert.Equal(sent, bench.Server.Sent);
        bench.Server.HubRequests.Clear();
        await bench.PullAsync(revision: HubServer.Commit);
        Assert.Empty(bench.Server.HubRequests);
        // A new commit with one new file brings that file alone.
        bench.Server.Head = new string('a', 40);
        bench.Server.Files["config.json"] = new("{ \"model_type\": \"qwen2\" }"u8.ToArray(), Large: false);
        var next = await bench.PullAsync();
        bench.Same(next);
        Assert.Equal(bench.Server.Files["config.json"].Bytes.Length, next.FetchedBytes);
        Assert.Equal(bench.Server.Head, File.ReadAllText(Path.Combine(Folder(bench), "refs", "main")));
    }

    [Fact]
    public async Task Offline_pull_uses_the_cache_or_names_what_is_missing()
    {
        using var bench = new Workbench();
        var online = bench.Settings;
        bench.Settings = online with { Offline = true };
        Assert.Contains("everything", (await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync())).Found);
        bench.Settings = online;
        var model = await bench.PullAsync();
        bench.Server.HubRequests.Clear();
        bench.Settings = online with { Offline = true };
        Assert.Equal(model.Folder, (await bench.PullAsync()).Folder);
        File.Delete(Path.Combine(Folder(bench), "blobs", bench.Server.Files["model-00002-of-00002.safetensors"].ETag));
        Assert.Contains(
            "model-00002-of-00002.safetensors",
            (await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync())).Found
        );
        Assert.Empty(bench.Server.HubRequests);
    }

    [Fact]
    public async Task Disk_that_is_too_small_is_refused_before_the_first_byte_of_weights()
    {
        using var bench = new Workbench { FreeBytes = _ => (64 << 20) + 500_000 };
        var fault = await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync());
        Assert.Contains("does not fit on the disk", fault.Message);
        Assert.Empty(bench.Server.StorageRequests);
        bench.FreeBytes = _ => (64 << 20) + 600_000;
        bench.Same(await bench.PullAsync());
    }

    [Fact]
    public async Task Pulls_at_the_same_time_share_one_download()
    {
        using var bench = new Workbench(shards: 6);
        // No weights before one has met the other.
        var met = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        bench.Noted = note => _ = note.Contains("another process") && met.TrySetResult();
        bench.Server.Gate = request =>
            request.Path.StartsWith("/blob/", StringComparison.Ordinal)
                ? Task.WhenAny(met.Task, Task.Delay(TimeSpan.FromMinutes(2)))
                : Task.CompletedTask;
        var both = await Task.WhenAll(bench.PullAsync(), bench.PullAsync());
        bench.Same(both[0]);
        var size = bench.Server.Needed.Sum(name => bench.Server.Files[name].Bytes.LongLength);
        Assert.Equal(size, both.Sum(model => model.FetchedBytes));
        Assert.Equal(size, bench.Server.Sent);
        Assert.Contains(bench.Notes, note => note.Contains("another process"));
    }

    [Fact]
    public async Task Pull_waits_while_another_program_holds_the_lock()
    {
        if (!OperatingSystem.IsLinux())
            return;
        using var bench = new Workbench(shards: 1);
        var file = Path.Combine(
            bench.Root,
            "hub",
            ".locks",
            "models--org--model",
            bench.Server.Files["model.safetensors"].ETag + ".lock"
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
        var pull = bench.PullAsync();
        while (!bench.Notes.Any(note => note.Contains("another process")) && !pull.IsCompleted)
            await Task.Delay(10);
        Assert.False(pull.IsCompleted);
        holder.StandardInput.Close();
        bench.Same(await pull);
    }

    [Fact]
    public async Task Progress_counts_resumed_bytes_and_ends_at_the_size()
    {
        using var bench = new Workbench(shards: 1);
        using var stop = new CancellationTokenSource();
        bench.Settings = bench.Settings with { Connections = 1 };
        bench.Advanced = (file, done, size, _) =>
        {
            if (file == "model.safetensors" && done > 100_000 && done < size)
                stop.Cancel();
        };
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => bench.PullAsync(stop: stop.Token));
        var rows = new ConcurrentQueue<(long Done, long Resumed)>();
        bench.Advanced = (file, done, _, resumed) =>
        {
            if (file == "model.safetensors")
                rows.Enqueue((done, resumed));
        };
        var model = await bench.PullAsync();
        Assert.InRange(model.ResumedBytes, 100_000, 299_999);
        Assert.All(rows, row => Assert.Equal(model.ResumedBytes, row.Resumed));
        Assert.Equal(300_000, rows.Last().Done);
        Assert.True(rows.Select(row => row.Done).SequenceEqual(rows.Select(row => row.Done).Order()));
    }

    [Fact]
    public async Task Verify_finds_a_flipped_bit_and_the_next_pull_repairs_it()
    {
        using var bench = new Workbench();
        var model = await bench.PullAsync();
        await bench.PullAsync($"{bench.Server.Url}files");
        using var hub = new ModelHub(bench.Settings) { FreeBytes = _ => long.MaxValue };
        var (count, damaged) = await hub.Cached().VerifyAsync(null, bench, default);
        Assert.Equal((bench.Server.Needed.Count() * 2, 0), (count, damaged.Count));
        foreach (var folder in new[] { bench.Settings.HubCache, bench.Settings.OwnCache })
        {
            var victim = Directory
                .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                .First(file => new FileInfo(file) is { Length: 300_000, LinkTarget: null });
            var bytes = File.ReadAllBytes(victim);
            bytes[12345] ^= 4;
            File.WriteAllBytes(victim, bytes);
        }
        Assert.Equal(2, (await hub.Cached().VerifyAsync(null, bench, default)).Damaged.Count);
        Assert.Equal(300_000, (await bench.PullAsync()).FetchedBytes);
        bench.Same(model);
    }

    [Fact]
    public async Task Remove_deletes_only_unshared_content()
    {
        using var bench = new Workbench();
        await bench.PullAsync();
        bench.Server.Head = new string('a', 40);
        bench.Server.Files["config.json"] = new("{ \"model_type\": \"qwen2\" }"u8.ToArray(), Large: false);
        var kept = await bench.PullAsync();
        using var hub = new ModelHub(bench.Settings) { FreeBytes = _ => long.MaxValue };
        var listed = Assert.Single(hub.Cached().List());
        Assert.Equal(("org/model", 2), (listed.Name, listed.Revisions.Count));
        Assert.Equal(["main"], listed.Revisions.Single(revision => revision.Commit == bench.Server.Head).Refs);
        Assert.Equal("{ \"model_type\": \"llama\" }".Length, hub.Cached().Remove("org/model", HubServer.Commit));
        bench.Same(kept);
        hub.Cached().Remove("org/model", null);
        Assert.Empty(hub.Cached().List());
        Assert.Throws<UserFault>(() => hub.Cached().Remove("org/model", null));
    }

    [Fact]
    public async Task Model_that_is_complete_needs_no_lock_and_no_write()
    {
        using var bench = new Workbench();
        var first = await bench.PullAsync();
        Directory.Delete(Path.Combine(bench.Settings.HubCache, ".locks"), recursive: true);
        File.WriteAllText(Path.Combine(bench.Settings.HubCache, ".locks"), "no folder can be made here");
        Assert.Equal(0, (await bench.PullAsync()).FetchedBytes);
        bench.Same(first);
    }
}
