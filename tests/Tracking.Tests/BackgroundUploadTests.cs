using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace Memopt.Tracking.Tests;

/// <summary>Uploads beside a training: a server that is away, hangs, or says no; a client that is killed.</summary>
public sealed class BackgroundUploadTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly Azurite azurite = new();
    private readonly List<string> told = [];
    private readonly LiteRunStore runs;
    private readonly LocalArtifacts local;

    public BackgroundUploadTests() =>
        (runs, local) = (new(Path.Combine(folder, "store")), new(Path.Combine(folder, "artifacts")));

    private BackgroundUpload Uploads(string? connection = null) =>
        new(
            local,
            Azurite.Place with
            {
                ConnectionString = connection ?? azurite.Connection,
            },
            runs,
            text =>
            {
                lock (told)
                    told.Add(text);
            },
            TimeSpan.FromMilliseconds(50)
        );

    private BlobArtifacts Far(string name = "far") =>
        new(
            new LocalArtifacts(Path.Combine(folder, name)),
            Azurite.Place with
            {
                ConnectionString = azurite.Connection,
            }
        );

    private IRunWriter Begin(string id) =>
        runs.Begin(
            new RunStart
            {
                Id = id,
                Experiment = "e",
                Started = DateTimeOffset.UtcNow,
                Config = "{}",
            }
        );

    /// <summary>A checkpoint as the trainer writes them: a large file and a small one.</summary>
    private string Checkpoint(int step, int bytes = 100_000)
    {
        var path = Path.Combine(folder, "checkpoints", $"step-{step}");
        Directory.CreateDirectory(path);
        var state = new byte[bytes];
        new Random(step).NextBytes(state);
        File.WriteAllBytes(Path.Combine(path, "state.safetensors"), state);
        File.WriteAllText(Path.Combine(path, "manifest.json"), $"{{\"step\": {step}}}");
        return path;
    }

    internal static IReadOnlyList<ArtifactFile> FilesOf(string path) =>
        [
            .. Directory
                .EnumerateFiles(path)
                .Select(file => new ArtifactFile(
                    Path.GetFileName(file),
                    Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file))),
                    new FileInfo(file).Length
                )),
        ];

    private static Upload Sending(string run, int step, string path) =>
        Upload.Folder(run, $"checkpoint-{step}", path, FilesOf(path));

    private static StepRow Step(int step) => new(step, 1, 1, 1, 1, 1, 1, 1);

    private List<string> Events(string run) =>
        [.. runs.Events(run).Where(happened => happened.Kind == "upload").Select(happened => happened.Text)];

    [Fact]
    public void Upload_with_the_server_away_for_a_while_loses_nothing()
    {
        using var uploads = Uploads();
        using (var run = Begin("r1"))
        {
            var step = 1;
            using var recording = uploads.Recording("r1", run, () => step);
            run.Append([Step(step)]);
            uploads.Send(Sending("r1", 1, Checkpoint(1)));
            Wait.Until(() =>
                runs.Get("r1")!
                    .Artifacts.Any(link => link.Name == "checkpoint-1" && link.Place == Azurite.Place.ToString())
            );
            azurite.Saved(); // what a killed server has not saved is not its client's to know
            azurite.Kill();
            uploads.Send(Sending("r1", 2, Checkpoint(2)));
            Wait.Until(() => Events("r1").Any(text => text.Contains("cannot be reached")));
            while (step < 20)
                run.Append([Step(++step)]);
            Directory.CreateDirectory(Path.Combine(folder, "adapter"));
            File.WriteAllText(Path.Combine(folder, "adapter", "adapter_config.json"), "{}");
            var link = local.Put("adapter", Path.Combine(folder, "adapter"));
            run.Link(link);
            uploads.Send(new("r1", link));
            run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
        }
        Assert.Null(runs.Get("r1")!.Artifacts.Single(link => link.Name == "adapter").Place);
        var coming = Task.Run(() =>
        {
            Thread.Sleep(1000);
            azurite.Start();
        });
        Assert.Empty(uploads.Finish(Wait.Patience, (_, _) => { }, CancellationToken.None));
        coming.Wait();

        var ended = runs.Get("r1")!;
        Assert.Equal((RunStatus.Finished, 20), (ended.Status, ended.Step));
        Assert.Equal(["adapter", "checkpoint-1", "checkpoint-2"], ended.Artifacts.Select(link => link.Name).Order());
        Assert.All(ended.Artifacts, link => Assert.Equal(Azurite.Place.ToString(), link.Place));
        Assert.All(ended.Artifacts, link => Assert.Empty(Far().Verify(link.Hash)));
        Assert.Equal(
            ["is in", "cannot be reached", "go through again", "adapter is in", "checkpoint-2 is in"],
            Events("r1")
                .Zip(
                    ["is in", "cannot be reached", "go through again", "adapter is in", "checkpoint-2 is in"],
                    (text, part) => text.Contains(part) ? part : text
                )
        );
        Assert.Equal(1, runs.Events("r1")[1].Step); // told when it began, not at the end
        Assert.Equal(2, told.Count); // once that it fails, once that it works again
        Assert.Empty(local.Notes(Azurite.Place));
        // nothing of a checkpoint is copied
        Assert.Equal([ended.Artifacts.Single(link => link.Name == "adapter").Hash], local.List());
    }

    [Fact]
    public void Training_beside_an_upload_that_hangs_continues()
    {
        using var hanging = new TcpListener(IPAddress.Loopback, 0);
        hanging.Start();
        var accepted = 0;
        _ = Task.Run(async () =>
        {
            var kept = new List<TcpClient>();
            while (true)
            {
                kept.Add(await hanging.AcceptTcpClientAsync());
                Interlocked.Increment(ref accepted);
            }
        });
        using (var uploads = Uploads(azurite.ConnectionAt(((IPEndPoint)hanging.LocalEndpoint).Port)))
        {
            using var run = Begin("r1");
            using (uploads.Recording("r1", run, () => 0))
            {
                uploads.Send(Sending("r1", 1, Checkpoint(1)));
                Wait.Until(() => accepted > 0);
                // A request hangs from here on. Steps, checkpoints and the end of the run come all the same.
                for (var step = 2; step <= 200; step++)
                {
                    run.Append([Step(step)]);
                    if (step % 10 == 0)
                        uploads.Send(Sending("r1", step, Checkpoint(step, 1000)));
                    if (step > 20 && step % 10 == 0)
                        Directory.Delete(Path.Combine(folder, "checkpoints", $"step-{step - 10}"), recursive: true);
                }
                run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
            }
            Assert.Empty(Events("r1"));
            Assert.Equal(200, runs.Get("r1")!.Step);
            using var stop = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
            var left = uploads.Finish(TimeSpan.FromHours(4), (_, _) => { }, stop.Token);
            Assert.True(stop.IsCancellationRequested);
            // What was removed meanwhile waits no longer: nothing grows with the number of checkpoints.
            Assert.Equal(
                ["checkpoint-1", "checkpoint-10", "checkpoint-200"],
                left.Select(one => one.Upload.Link.Name).Order(StringComparer.Ordinal)
            );
        }
        // The next process sends what was left.
        using (var next = Uploads())
            Assert.Empty(next.Finish(Wait.Patience, (_, _) => { }, CancellationToken.None));
        Assert.Equal(
            ["checkpoint-1", "checkpoint-10", "checkpoint-200"],
            runs.Get("r1")!.Artifacts.Select(link => link.Name).Order(StringComparer.Ordinal)
        );
        Assert.Equal(3, Far().Uploaded().Count);
    }

    [Fact]
    public void Upload_sends_the_newest_first_and_skips_removed_and_replaced_checkpoints()
    {
        var away = azurite.ConnectionAt(1);
        using (Begin("r1")) { }
        using (var uploads = Uploads(away))
        {
            for (var step = 1; step <= 4; step++)
                uploads.Send(Sending("r1", step, Checkpoint(step)));
            Assert.Equal(4, uploads.Finish(TimeSpan.FromSeconds(0.5), (_, _) => { }, CancellationToken.None).Count);
        }
        Directory.Delete(Path.Combine(folder, "checkpoints", "step-1"), recursive: true);
        File.WriteAllText(Path.Combine(folder, "checkpoints", "step-3", "manifest.json"), "{\"step\": 9}");
        using (var uploads = Uploads())
            Assert.Empty(uploads.Finish(Wait.Patience, (_, _) => { }, CancellationToken.None));
        Assert.Equal(
            ["checkpoint-4", "checkpoint-2"],
            Events("r1").Where(text => text.Contains(" is in ")).Select(text => text.Split(' ')[0])
        );
        Assert.Empty(local.Notes(Azurite.Place));
    }

    [Fact]
    public void Upload_with_a_lasting_fault_ends_the_wait_at_once()
    {
        using (Begin("r1")) { }
        using (var uploads = Uploads(azurite.ConnectionWith(Convert.ToBase64String(new byte[64]))))
        {
            uploads.Send(Sending("r1", 1, Checkpoint(1)));
            var left = Assert.Single(uploads.Finish(TimeSpan.FromHours(4), (_, _) => { }, CancellationToken.None));
            Assert.Contains("the key or signature is refused", left.Why);
            Assert.Contains("AZURE_STORAGE_CONNECTION_STRING", left.Next);
            Assert.Contains("the key or signature is refused", Assert.Single(Events("r1")));
        }
        azurite.Container.Delete();
        using (var uploads = Uploads())
        {
            Assert.Contains(
                "no container",
                Assert.Single(uploads.Finish(TimeSpan.FromHours(4), (_, _) => { }, CancellationToken.None)).Why
            );
            // Repaired while the training goes on: the next one gets through and takes the others with it.
            azurite.Container.Create();
            uploads.Send(Sending("r1", 2, Checkpoint(2)));
            Assert.Empty(uploads.Finish(TimeSpan.FromHours(4), (_, _) => { }, CancellationToken.None));
        }
        Assert.Equal(2, Far().Uploaded().Count);
        Assert.Contains(told, text => text.Contains("go through again"));
    }

    [Fact]
    public void Sync_after_a_killed_upload_sends_the_rest_and_links_it_to_the_run()
    {
        var checkpoint = Checkpoint(1, 24 << 20);
        Directory.CreateDirectory(Path.Combine(folder, "checkpoints", "adapter"));
        File.WriteAllBytes(
            Path.Combine(folder, "checkpoints", "adapter", "adapter_model.safetensors"),
            new byte[8 << 20]
        );
        // Both are 32 MiB in blocks of two, four at a time: some of them arrive whole, and not all.
        using (var proxy = new ByteLimitProxy(azurite.Port, 20 << 20))
        using (
            var client = Process.Start(
                new ProcessStartInfo(
                    "dotnet",
                    [
                        "exec",
                        typeof(BackgroundUploadTests).Assembly.Location,
                        "upload",
                        folder,
                        azurite.ConnectionAt(proxy.Port),
                        checkpoint,
                    ]
                )
            )!
        )
        {
            Wait.Until(() => azurite.Blocks > 0 || client.HasExited);
            Assert.False(client.HasExited);
            client.Kill();
            Wait.Ended(client);
        }
        Assert.NotEmpty(local.Notes(Azurite.Place));
        var far = new BlobArtifacts(local, Azurite.Place with { ConnectionString = azurite.Connection });
        far.Sync(runs);
        var links = runs.Get("r1")!.Artifacts;
        Assert.Contains(links, link => link.Name == "checkpoint-00000001");
        Assert.All(links, link => Assert.Equal(Azurite.Place.ToString(), link.Place));
        Assert.All(links, link => Assert.Empty(Far().Verify(link.Hash)));
        Assert.Empty(local.Notes(Azurite.Place));
        Assert.Empty(far.Sync(runs).Hashes);
    }

    public void Dispose()
    {
        azurite.Dispose();
        Directory.Delete(folder, recursive: true);
    }
}
