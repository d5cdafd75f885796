using System.Diagnostics;
using System.Text.RegularExpressions;
using Memopt.Hub.Tests;
using Xunit.Abstractions;

namespace Memopt.Tool.Tests;

/// <summary>A download that is killed again and again, over a network that fails again and again, ends with every byte
/// right and next to nothing fetched twice. MEMOPT_PULL_MIB sets the size: 96 by default, 1024 with ./test.sh --full,
/// as the results in bench/ were made.
/// </summary>
public sealed class PullKillTests(ITestOutputHelper output)
{
    private const int shards = 4,
        faults = 50;

    private static readonly int kills = Cli.Full ? 12 : 6;
    private int owed;

    [Fact]
    public async Task Pull_killed_and_faulted_repeatedly_refetches_at_most_a_twentieth()
    {
        var mebibytes = int.Parse(Environment.GetEnvironmentVariable("MEMOPT_PULL_MIB") ?? (Cli.Full ? "1024" : "96"));
        var size = (long)mebibytes << 20;
        using var server = new HubServer().WithModel(shards, (int)(size / shards));
        // At least 20 seconds for the whole over the connections that it takes, so that kills fall between bytes.
        server.Rate = size / Math.Min(8, shards * ((size / shards + (32 << 20) - 1) >> 25)) / 20;
        Spoil(server, size);
        var root = Directory.CreateTempSubdirectory("memopt-kill").FullName;
        try
        {
            using var watching = new CancellationTokenSource();
            var watcher = Task.Run(() => WatchAsync(server, root, watching.Token));
            var (random, killed, peak) = (new Random(5), 0, 0L);
            while (killed < kills)
            {
                // Each has its share, and the last, which is not killed, the rest: none ends before its kill, whenever
                // that comes.
                server.Most = size * (killed + 1) / (kills + 2);
                owed = shards * (killed + 1);
                using var pull = Start(root, server);
                var errors = pull.StandardError.ReadToEndAsync();
                // From its first faults on, whatever the machine takes to start a process: no file gets an answer
                // without one before.
                while (server.Faults < owed && !pull.HasExited)
                    await Task.Delay(10);
                Assert.False(
                    pull.WaitForExit(TimeSpan.FromMilliseconds(random.Next(100, 900))),
                    $"the download ended after {killed} kills: {(pull.HasExited ? errors.Result : "")}"
                );
                peak = Math.Max(peak, Peak(pull));
                pull.Kill();
                pull.WaitForExit();
                Assert.DoesNotContain("error:", errors.Result);
                killed++;
            }
            (server.Most, owed) = (long.MaxValue, faults);
            using var last = Start(root, server);
            var (text, error) = (last.StandardOutput.ReadToEndAsync(), last.StandardError.ReadToEndAsync());
            while (!last.WaitForExit(50))
                peak = Math.Max(peak, Peak(last));
            var result = new Outcome(last.ExitCode, await text, await error);
            Assert.True(result.Exit == 0, result.Error);
            watching.Cancel();
            var looks = await watcher;
            var folder = (string)result.Json["folder"]!;
            foreach (var name in server.Needed)
                Assert.True(
                    server.Files[name].Bytes.AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(folder, name))),
                    $"{name} differs"
                );
            Assert.Empty(Directory.EnumerateFiles(root, "*.part", SearchOption.AllDirectories));
            var all = server.Needed.Sum(name => server.Files[name].Bytes.LongLength);
            output.WriteLine(
                $"{all:N0} bytes in {shards} files; {killed} kills, {server.Faults} faults; {server.Sent:N0} "
                    + $"bytes sent = {server.Sent / (double)all:F4} of the size; peak memory {peak / 1048576.0:F1} "
                    + "MiB; "
                    + $"{looks} looks at the cache"
            );
            Assert.True(server.Faults >= faults, $"only {server.Faults} faults");
            Assert.InRange(server.Sent, all, all * 1.05);
            Assert.InRange(peak, 1, 100 << 20);
            Assert.True(looks > 20);
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    /// <summary>Faults of each kind at random offsets, over the whole of the download. Those of one file come in turn,
    /// so that none goes without a byte too often in a row.</summary>
    private void Spoil(HubServer server, long size)
    {
        var random = new Random(11);
        FaultKind[] kinds =
        [
            FaultKind.Reset,
            FaultKind.Close,
            FaultKind.Status429,
            FaultKind.Status503,
            FaultKind.WrongETag,
            FaultKind.Whole,
            FaultKind.Shorten,
            FaultKind.Reset,
        ];
        var turns = new Dictionary<string, int>();
        var (made, stalls) = (0, 0);
        server.Spoil = request =>
        {
            lock (random)
            {
                // the last one has to come to an end
                if (made >= owed && (owed == faults && made >= faults + 10 || random.Next(6) == 0))
                    return null;
                made++;
                // Stalls cost 20 seconds of real time: one is enough here, the unit tests have many.
                if (made > 40 && stalls++ == 0)
                    return new(FaultKind.Stall, random.Next((int)(size / 512)));
                turns[request.Path] = turns.GetValueOrDefault(request.Path) + 1;
                return new(kinds[turns[request.Path] % kinds.Length], random.Next((int)(size / 256)));
            }
        };
    }

    /// <summary>Looks at the cache all the while: what has its final name must be whole.</summary>
    private static async Task<int> WatchAsync(HubServer server, string root, CancellationToken stop)
    {
        var sizes = server
            .Files.Values.DistinctBy(file => file.ETag)
            .ToDictionary(file => file.ETag, file => file.Bytes.LongLength);
        var looks = 0;
        for (; !stop.IsCancellationRequested; looks++)
        {
            var blobs = Path.Combine(root, "hub", "models--org--model", "blobs");
            if (Directory.Exists(blobs))
            {
                foreach (
                    var blob in new DirectoryInfo(blobs)
                        .EnumerateFiles()
                        .Where(file => !file.Name.EndsWith(".part", StringComparison.Ordinal))
                )
                {
                    Assert.True(
                        sizes.TryGetValue(blob.Name, out var size) && blob.Length == size,
                        $"{blob.Name} is visible with {blob.Length} bytes"
                    );
                    if (looks % 50 == 0)
                        Assert.Equal(
                            blob.Name,
                            server.Files.Values.First(file => file.ETag == blob.Name) is { Large: true }
                                ? Convert.ToHexStringLower(
                                    System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(blob.FullName))
                                )
                                : blob.Name
                        );
                }
                foreach (
                    var link in Directory.EnumerateFiles(
                        Path.GetDirectoryName(blobs)!,
                        "*.safetensors",
                        SearchOption.AllDirectories
                    )
                )
                    Assert.True(new FileInfo(link).ResolveLinkTarget(true)!.Exists, $"{link} points to nothing");
            }
            await Task.Delay(20, CancellationToken.None);
        }
        return looks;
    }

    private static Process Start(string root, HubServer server)
    {
        var start = Cli.Command(root, "pull", server.Model, "--json");
        start.Environment["HF_ENDPOINT"] = server.Url.ToString();
        start.Environment["HF_HUB_CACHE"] = Path.Combine(root, "hub");
        start.Environment.Remove("HF_TOKEN");
        start.Environment.Remove("HF_HUB_OFFLINE");
        return Process.Start(start)!;
    }

    /// <summary>The most memory that a process has held, as Linux counts it.</summary>
    private static long Peak(Process process)
    {
        try
        {
            return long.Parse(
                    Regex.Match(File.ReadAllText($"/proc/{process.Id}/status"), @"VmHWM:\s+(\d+)").Groups[1].Value
                ) << 10;
        }
        catch (Exception e) when (e is IOException or FormatException)
        {
            return 0;
        }
    }
}
