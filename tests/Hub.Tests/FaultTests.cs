using System.Collections.Concurrent;
using Memopt.Core;
using Memopt.Core.Tests;

namespace Memopt.Hub.Tests;

/// <summary>Whatever the network does, the bytes are right, and little is fetched twice.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class FaultTests
{
    private const long most = 1_000_000;

    /// <summary>Spoils the first so many answers that are of weights.</summary>
    private static Func<HubRequest, Fault?> First(int count, Func<HubRequest, Fault> fault)
    {
        var left = count;
        return request =>
            request.Path.StartsWith("/blob/", StringComparison.Ordinal) && Interlocked.Decrement(ref left) >= 0
                ? fault(request)
                : null;
    }

    [Theory]
    [InlineData("Reset", 6)]
    [InlineData("Stall", 3)]
    [InlineData("Close", 6)]
    [InlineData("Status429", 5)]
    [InlineData("Status503", 5)]
    [InlineData("WrongETag", 3)]
    [InlineData("Whole", 3)]
    [InlineData("Shorten", 6)]
    [InlineData("Forbidden", 1)]
    [InlineData("Silent", 3)]
    public async Task Transient_fault_refetches_little(string name, int count)
    {
        using var fixture = new PullFixture();
        var kind = Enum.Parse<FaultKind>(name);
        // of the fast clock: three seconds, and one that passes by chance costs a part
        var limit = TimeSpan.FromSeconds(150);
        fixture.Settings = kind switch
        {
            FaultKind.Stall => fixture.Settings with { StallTimeout = limit },
            FaultKind.Silent => fixture.Settings with { ResponseTimeout = limit },
            _ => fixture.Settings,
        };
        var random = new Random(7);
        var seen = 0;
        fixture.Server.Spoil = request =>
        {
            // The first answers are good, so that there is an ETag and an address in storage to compare with.
            if (
                !request.Path.StartsWith("/blob/", StringComparison.Ordinal)
                || Interlocked.Increment(ref seen) is var n && (n <= 2 || n > 2 + count)
            )
                return null;
            lock (random)
                return new(kind, Cut: random.Next(60_000));
        };
        var model = await fixture.PullAsync();
        fixture.Same(model);
        Assert.Equal(count, fixture.Server.Faults);
        Assert.NotEmpty(fixture.Notes);
        var size = fixture.Server.Needed.Sum(file => fixture.Server.Files[file].Bytes.LongLength);
        Assert.Equal(size, model.FetchedBytes);
        Assert.InRange(fixture.Server.Sent, size, size + most);
    }

    [Fact]
    public async Task Corrupt_bytes_are_detected_and_the_file_is_fetched_again()
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Spoil = First(1, request => new(FaultKind.Corrupt, Cut: request.Range(300_000).From + 100));
        var model = await fixture.PullAsync();
        fixture.Same(model);
        Assert.Contains(fixture.Notes, note => note.Contains("not those that the hub promises"));
        Assert.True(fixture.Server.Sent >= 600_000);
    }

    [Fact]
    public async Task File_that_always_arrives_damaged_is_refused_and_never_published()
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Spoil = First(int.MaxValue, request => new(FaultKind.Corrupt, Cut: request.Range(300_000).From));
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("arrives damaged", fault.Message);
        Assert.Empty(Directory.EnumerateFiles(fixture.Root, "*.safetensors", SearchOption.AllDirectories));
        Assert.DoesNotContain(
            Directory.EnumerateFiles(fixture.Root, "*", SearchOption.AllDirectories),
            file => new FileInfo(file).Length > 200_000
        );
    }

    [Fact]
    public async Task Server_that_ignores_ranges_sends_each_file_in_one_stream()
    {
        using var fixture = new PullFixture(bytes: 900_000);
        fixture.Server.Spoil = First(int.MaxValue, _ => new(FaultKind.Whole));
        fixture.Same(await fixture.PullAsync());
        // Some answers are given up before the client believes it, and those that wait hold what their sockets hold.
        Assert.InRange(fixture.Server.Sent, 1_800_000, 30_000_000);
    }

    [Fact]
    public async Task Server_that_is_down_fails_the_pull_and_keeps_the_bytes_received()
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Settings = fixture.Settings with { Connections = 1 }; // else the good ones may be given up too
        var good = 2;
        fixture.Server.Spoil = request =>
            request.Path.StartsWith("/blob/", StringComparison.Ordinal) && Interlocked.Decrement(ref good) < 0
                ? new(FaultKind.Reset)
                : null;
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync(speed: 400));
        Assert.Contains("does not deliver", fault.Message);
        Assert.Contains("run the same command again", fault.Next);
        fixture.Server.Spoil = _ => null;
        var before = fixture.Server.Sent;
        var model = await fixture.PullAsync();
        fixture.Same(model);
        Assert.Equal(2 * 65_536, model.ResumedBytes);
        Assert.Equal(300_000 - model.ResumedBytes, fixture.Server.Sent - before);
    }

    [Fact]
    public async Task Host_where_every_request_fails_is_paused()
    {
        using var fixture = new PullFixture();
        var clock = new StepClock();
        var times = new ConcurrentQueue<DateTimeOffset>();
        fixture.Server.Spoil = _ =>
        {
            times.Enqueue(clock.GetUtcNow());
            return new(FaultKind.Status503, RetryAfter: 0);
        };
        using var http = new HubHttp(fixture.Settings, clock, () => 0.5) { Retrying = fixture.Note };
        var asked = Enumerable
            .Range(0, 8)
            .Select(_ => http.DocumentAsync(new(fixture.Server.Url, "files/config.json"), null, default))
            .ToList();
        await clock.RunAsync(asked);
        foreach (var one in asked)
            await Assert.ThrowsAsync<UserFault>(() => one);
        Assert.Contains(fixture.Notes, note => note.Contains("the host is left alone for a while; again in"));
        // The 24th failure closes the door for ten seconds; 9 attempts each of 8, less those that were not made.
        Assert.InRange(times.Count, 25, 8 * 9 - 1);
        Assert.InRange((times.ElementAt(24) - times.ElementAt(23)).TotalSeconds, 10, 60);
    }

    [Fact]
    public async Task Retry_after_is_honoured_and_a_long_one_refused()
    {
        using var fixture = new PullFixture(shards: 1);
        var clock = new FastClock(50);
        var times = new ConcurrentQueue<DateTimeOffset>();
        var left = 1;
        fixture.Server.Spoil = request =>
        {
            if (!request.Path.EndsWith("config.json", StringComparison.Ordinal) || request.Path.Contains("generation"))
                return null;
            times.Enqueue(clock.GetUtcNow());
            return left-- > 0 ? new(FaultKind.Status429, RetryAfter: 20) : null;
        };
        await fixture.PullAsync();
        Assert.Equal(2, times.Count);
        Assert.InRange((times.Last() - times.First()).TotalSeconds, 19.9, double.MaxValue);
        Assert.EndsWith("; again in 20.5 s", Assert.Single(fixture.Notes)); // half a second of jitter

        using var other = new PullFixture(shards: 1);
        other.Server.Spoil = _ => new(FaultKind.Status503, RetryAfter: 3600);
        var fault = await Assert.ThrowsAsync<UserFault>(() => other.PullAsync());
        Assert.Contains("60 minutes", fault.Message);
    }

    [Fact]
    public async Task Content_that_changes_during_the_download_is_never_mixed()
    {
        using var fixture = new PullFixture(shards: 1);
        var source = $"{fixture.Server.Url}files";
        using var stop = new CancellationTokenSource();
        fixture.Advanced = (file, done, size, _) =>
        {
            if (file == "model.safetensors" && done > 100_000 && done < size)
                stop.Cancel();
        };
        fixture.Settings = fixture.Settings with { Connections = 1 };
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => fixture.PullAsync(source, stop: stop.Token));
        // The file is another one when the download goes on.
        fixture.Server.WithModel(1, 300_000, seed: 2);
        var second = await fixture.PullAsync(source);
        Assert.Equal(
            fixture.Server.Files["model.safetensors"].Bytes,
            File.ReadAllBytes(Path.Combine(second.Folder, "model.safetensors"))
        );
        Assert.Equal(0, second.ResumedBytes);

        // And when it changes within one download, that one is refused and the next takes the new content.
        using var late = new PullFixture(shards: 1)
        {
            Settings = fixture.Settings with { Endpoint = fixture.Server.Url },
        };
        late.Settings = late.Settings with { OwnCache = Path.Combine(late.Root, "own") };
        source = $"{late.Server.Url}files";
        late.Advanced = (file, done, _, _) =>
        {
            if (file == "model.safetensors" && done is > 100_000 and < 200_000)
                late.Server.Files[file] = new(new byte[300_000], Large: true);
        };
        var fault = await Assert.ThrowsAsync<UserFault>(() => late.PullAsync(source, speed: 400));
        Assert.Contains("model.safetensors", fault.Message + fault.Found);
        late.Advanced = (_, _, _, _) => { };
        var third = await late.PullAsync(source);
        Assert.Equal(new byte[300_000], File.ReadAllBytes(Path.Combine(third.Folder, "model.safetensors")));
    }

    [Fact]
    public async Task Download_without_an_etag_restarts_after_a_cut()
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.ETags = false;
        var left = 2;
        fixture.Server.Spoil = request =>
            request.Path.EndsWith("model.safetensors", StringComparison.Ordinal)
            && request.Header("range") is null
            && Interlocked.Decrement(ref left) >= 0
                ? new(FaultKind.Reset, Cut: 150_000)
                : null;
        var model = await fixture.PullAsync($"{fixture.Server.Url}files");
        Assert.Equal(
            fixture.Server.Files["model.safetensors"].Bytes,
            File.ReadAllBytes(Path.Combine(model.Folder, "model.safetensors"))
        );
        Assert.DoesNotContain(
            fixture.Server.HubRequests,
            request =>
                request.Path.EndsWith("model.safetensors", StringComparison.Ordinal)
                && request.Header("range") is not (null or "bytes=0-0")
        );
    }
}
