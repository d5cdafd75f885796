using System.Diagnostics;
using System.Security.Cryptography;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Sas;
using Xunit.Abstractions;

namespace Memopt.Tracking.Tests;

/// <summary>Artifacts in a storage account, over real sockets. MEMOPT_BLOB=full makes the kills at the size that
/// bench/RESULTS.md reports.</summary>
public sealed class BlobArtifactsTests(ITestOutputHelper output) : IDisposable
{
    private const int block = 256 << 10;
    private static readonly bool full = Environment.GetEnvironmentVariable("MEMOPT_BLOB") == "full";
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly Azurite azurite = new();

    private string At(string name) => Path.Combine(folder, name);

    private LocalArtifacts Local(string name) => new(At(name));

    private BlobArtifacts Remote(
        string local,
        string? connection = null,
        int attempts = 8,
        Action<long>? moved = null
    ) =>
        new(Local(local), Azurite.Place with { ConnectionString = connection ?? azurite.Connection }, attempts)
        {
            BlockBytes = block,
            Moved = moved,
        };

    /// <summary>A folder with one file of some size, a small one, an empty one, and one twice.</summary>
    private string Adapter(long bytes, int seed = 1)
    {
        var path = At($"adapter-{seed}-{bytes}");
        Directory.CreateDirectory(Path.Combine(path, "sub"));
        var (random, buffer) = (new Random(seed), new byte[1 << 20]);
        using (var file = File.Create(Path.Combine(path, "adapter_model.safetensors")))
        {
            for (var left = bytes; left > 0; left -= buffer.Length)
            {
                random.NextBytes(buffer);
                file.Write(buffer, 0, (int)Math.Min(left, buffer.Length));
            }
        }
        File.WriteAllText(Path.Combine(path, "adapter_config.json"), "{}");
        File.WriteAllText(Path.Combine(path, "sub", "again.json"), "{}");
        File.WriteAllText(Path.Combine(path, "empty"), "");
        return path;
    }

    private void Same(string expected, string got)
    {
        var names = Directory
            .EnumerateFiles(expected, "*", SearchOption.AllDirectories)
            .Select(file => Path.GetRelativePath(expected, file))
            .Order()
            .ToList();
        Assert.Equal(
            names,
            Directory
                .EnumerateFiles(got, "*", SearchOption.AllDirectories)
                .Select(file => Path.GetRelativePath(got, file))
                .Order()
        );
        Assert.All(names, name => Assert.Equal(Hash(Path.Combine(expected, name)), Hash(Path.Combine(got, name))));
    }

    private static string Hash(string file)
    {
        using var stream = File.OpenRead(file);
        return Convert.ToHexString(SHA256.HashData(stream));
    }

    private Process Start(string verb, string local, ByteLimitProxy proxy, string hash, int size) =>
        Process.Start(
            new ProcessStartInfo(
                "dotnet",
                [
                    "exec",
                    typeof(BlobArtifactsTests).Assembly.Location,
                    verb,
                    At(local),
                    azurite.ConnectionAt(proxy.Port),
                    hash,
                    $"{size}",
                ]
            )
            {
                RedirectStandardError = true,
            }
        )!;

    [Fact]
    public void Artifact_pushed_comes_back_equal_and_is_sent_once()
    {
        var adapter = Adapter((5 * block) + 7);
        var link = Remote("one").Put("adapter", adapter);
        Assert.Equal(Local("other").Put("adapter", adapter).Hash, link.Hash);
        // the large file and "{}", which is there twice; an empty file has no block
        Assert.Equal(6 + 1, azurite.Blocks);

        Assert.Equal(new Sent(0, 0), Remote("one").Push(link.Hash));
        Assert.Equal(link.Hash, Remote("two").Put("renamed", adapter).Hash);
        File.WriteAllText(Path.Combine(adapter, "adapter_config.json"), "{ }");
        Assert.Equal(new Sent(1, 3), Remote("two").Push(Local("two").Put("changed", adapter).Hash));
        Assert.Equal(8, azurite.Blocks);

        var far = Remote("far");
        Assert.Equal(2, far.List().Count);
        Assert.Equal(4, far.Files(link.Hash).Count);
        Assert.Empty(far.Verify(link.Hash));
        Assert.Empty(Local("far").List());
        far.Get(link.Hash, At("back"));
        File.WriteAllText(Path.Combine(adapter, "adapter_config.json"), "{}");
        Same(adapter, At("back"));
        Assert.Equal([link.Hash], Local("far").List());

        far.Delete(link.Hash);
        var left = Assert.Single(far.List());
        Assert.Empty(Remote("nothing").Verify(left));
    }

    [Fact]
    public void Push_with_client_and_server_killed_resumes_where_it_was()
    {
        var (bytes, size, clients, servers) = full ? (2L << 30, 2 << 20, 10, 10) : (24L << 20, 64 << 10, 2, 1);
        var adapter = Adapter(bytes);
        var hash = Local("here").Put("adapter", adapter).Hash;
        var needed = (int)(bytes / size) + 1;
        var watch = Stopwatch.StartNew();
        // It cannot end before the last kill, nor come nearer to its end than the next one allows.
        var share = bytes / (clients + servers + 1);
        using var proxy = new ByteLimitProxy(azurite.Port, share);
        var client = Start("push", "here", proxy, hash, size);
        for (var kill = 1; kill <= clients + servers; kill++)
        {
            Wait.Until(() => proxy.AtLimit || client.HasExited);
            Assert.False(client.HasExited, "the upload ended before it could be killed");
            if (kill % (clients + servers) % ((clients + servers) / servers) == 0)
            {
                // The client stands still meanwhile, for the server forgets what it has not saved.
                Signal(client, "STOP");
                azurite.Saved();
                azurite.Kill();
                azurite.Start();
                Signal(client, "CONT");
            }
            else
            {
                client.Kill();
                Wait.Ended(client);
                client = Start("push", "here", proxy, hash, size);
            }
            proxy.Allow(kill < clients + servers ? share : long.MaxValue);
        }
        var wrong = client.StandardError.ReadToEndAsync();
        Wait.Ended(client);
        Assert.True(client.ExitCode == 0, wrong.Result);
        output.WriteLine(
            $"{bytes >> 20} MiB, {clients} kills of the client, {servers} of the server: {azurite.Blocks} blocks "
                + $"sent of {needed} needed, {(double)azurite.Blocks / needed:F3} ×, cut ones counted whole; "
                + $"{(double)proxy.Passed / bytes:F3} × the bytes; {watch.Elapsed.TotalSeconds:F0} s"
        );
        // Each kill cuts off four blocks at most, for the proxy holds them midway; a killed server does not log them.
        Assert.InRange(azurite.Blocks, needed - (4 * servers), needed + (4 * (clients + servers)));
        Assert.InRange(proxy.Passed, bytes, bytes * 1.1);

        Assert.Equal(new Sent(0, 0), Remote("here").Push(hash));
        Remote("there").Get(hash, At("back"));
        Same(adapter, At("back"));
    }

    [Fact]
    public void Download_killed_resumes_from_its_last_byte()
    {
        var adapter = Adapter(20L << 20);
        var hash = Remote("here").Put("adapter", adapter).Hash;
        var part = Local("there").Object(Local("here").Files(hash).MaxBy(file => file.Bytes)!.Hash) + ".part";
        using (var proxy = new ByteLimitProxy(azurite.Port, 12 << 20))
        using (var client = Start("pull", "there", proxy, hash, block))
        {
            Wait.Until(() =>
                (new FileInfo(part) is { Exists: true } file && file.Length > 8 << 20) || client.HasExited
            );
            Assert.False(client.HasExited);
            client.Kill();
            Wait.Ended(client);
        }
        var had = new FileInfo(part).Length;
        Assert.InRange(had, 8 << 20, (20 << 20) - 1);
        var before = Local("there").Object(Local("here").Files(hash).First(file => file.Bytes == 2).Hash);
        long moved = File.Exists(before) ? 2 : 0;
        Remote("there", moved: bytes => moved += bytes).Get(hash, At("back"));
        Assert.Equal((20 << 20) + 2 - had, moved);
        Same(adapter, At("back"));
        Assert.False(File.Exists(part));
    }

    [Fact]
    public void Part_file_with_foreign_bytes_is_fetched_again()
    {
        var adapter = Adapter(4 * block);
        var hash = Remote("here").Put("adapter", adapter).Hash;
        foreach (var file in Local("here").Files(hash))
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Local("there").Object(file.Hash))!);
            File.WriteAllText(Local("there").Object(file.Hash) + ".part", "x");
        }
        Remote("there").Get(hash, At("back"));
        Same(adapter, At("back"));

        // So is content that was damaged here.
        File.WriteAllText(Local("there").Object(Local("here").Files(hash)[0].Hash), "damaged");
        Remote("there").Get(hash, At("again"));
        Same(adapter, At("again"));
    }

    [Fact]
    public void Artifact_changed_in_the_account_is_detected_and_not_returned()
    {
        var link = Remote("here").Put("adapter", Adapter(3 * block));
        var file = Local("here").Files(link.Hash).MaxBy(file => file.Bytes)!;
        var blob = azurite.Container.GetBlobClient($"team/one/objects/{file.Hash[..2]}/{file.Hash}");
        var bytes = blob.DownloadContent().Value.Content.ToArray();
        bytes[block + 5] ^= 1;
        blob.Upload(
            new BinaryData(bytes),
            new BlobUploadOptions { Metadata = new Dictionary<string, string> { ["sha256"] = file.Hash } }
        );

        Assert.Contains("adapter_model.safetensors was changed", Assert.Single(Remote("there").Verify(link.Hash)));
        Assert.Contains(
            "was changed",
            Assert.Throws<TrackingException>(() => Remote("there").Get(link.Hash, At("back"))).Message
        );
        Assert.False(Directory.Exists(At("back")));
        Assert.Empty(Local("there").List());

        // As its message says: it is sent again when it is named.
        Assert.Equal(new Sent(3, file.Bytes), Remote("here").Sync(null, [link.Hash]).Sent);
        Assert.Empty(Remote("there").Verify(link.Hash));
        Assert.Empty(Remote("here").Sync(null, [link.Hash]).Hashes);
        blob.Delete();
        Assert.Contains("missing", Assert.Single(Remote("there").Verify(link.Hash)));
        Assert.Equal(3, Remote("here").Push(link.Hash).Blocks);
        Assert.Empty(Remote("there").Verify(link.Hash));
    }

    [Fact]
    public void Artifact_pushed_by_several_clients_at_once_is_whole()
    {
        var adapter = Adapter(20 * block);
        var link = Local("a").Put("adapter", adapter);
        Local("b").Put("adapter", adapter);
        Parallel.Invoke(() => Remote("a").Push(link.Hash), () => Remote("b").Push(link.Hash));
        Assert.Empty(Remote("there").Verify(link.Hash));
        Assert.Equal([link.Hash], Remote("there").Uploaded());
    }

    [Fact]
    public void Push_that_fails_names_the_cause_and_loses_nothing()
    {
        var adapter = Adapter(2 * block);
        var sas = azurite
            .Container.GenerateSasUri(BlobContainerSasPermissions.All, DateTimeOffset.UtcNow.AddHours(-1))
            .Query.TrimStart('?');
        Told("refused (403", "AZURE_STORAGE", azurite.ConnectionWith(Convert.ToBase64String(new byte[64])));
        Told("expired at", "AZURE_STORAGE_SAS_TOKEN", $"BlobEndpoint={azurite.Endpoint};SharedAccessSignature={sas}");
        azurite.Container.Delete();
        Told("no container \"artifacts\"", "az storage container create", azurite.Connection);
        Told("cannot be reached", "artifacts sync", azurite.ConnectionAt(1));

        // What could not be sent goes up later.
        azurite.Container.Create();
        Assert.Contains("not uploaded yet", Assert.Single(Remote("here").Verify(Local("here").List()[0])));
        Assert.Equal(3, Remote("here").Push(Local("here").List()[0]).Blocks);

        void Told(string what, string next, string connection)
        {
            var fault = Assert.Throws<TrackingException>(() =>
                Remote("here", connection, attempts: 2).Put("adapter", adapter)
            );
            var link = Local("here").Put("adapter", adapter);
            Assert.Contains(what, fault.Message);
            Assert.Contains(next, fault.Next);
            Assert.DoesNotContain("sig=", fault.Message + fault.Next);
            Local("here").Get(link.Hash, At(what[..3]));
            Same(adapter, At(what[..3]));
            Assert.Equal(
                fault.Message,
                Assert.Throws<TrackingException>(() => Remote("here", connection, attempts: 2).Push(link.Hash)).Message
            );
        }
    }

    [Fact]
    public void Connection_string_of_another_account_is_refused() =>
        Assert.Contains(
            "another storage account",
            Assert
                .Throws<TrackingException>(() =>
                    new BlobArtifacts(
                        Local("here"),
                        BlobLocation.Parse("az://other/container") with
                        {
                            ConnectionString = azurite.Connection,
                        }
                    )
                )
                .Message
        );

    public void Dispose()
    {
        azurite.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    private static void Signal(Process process, string signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", $"{process.Id}"]);
        kill.WaitForExit();
        Assert.Equal(0, kill.ExitCode);
    }
}
