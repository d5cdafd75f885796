using System.Collections.Concurrent;
using Memopt.Core.Tests;

namespace Memopt.Hub.Tests;

/// <summary>A server, an empty cache, a clock that runs fast: what each test of downloads needs.</summary>
internal sealed class PullFixture : IPullWatcher, IDisposable
{
    public PullFixture(int shards = 2, int bytes = 300_000)
    {
        Server = new HubServer().WithModel(shards, bytes);
        Settings = new()
        {
            Endpoint = Server.Url,
            ModelScope = Server.Url,
            Azure = Server.Url + "files",
            HubCache = Path.Combine(Root, "hub"),
            OwnCache = Path.Combine(Root, "own"),
            Program = Root,
            PartBytes = 64 << 10,
            // A thread that gets no time is no stall: only tests of stalls have a limit that is ever reached.
            StallTimeout = Patience,
            ResponseTimeout = Patience,
        };
    }

    /// <summary>The longest limit that can be set: minutes at the fastest clock.</summary>
    public static TimeSpan Patience { get; } = TimeSpan.FromDays(1);

    public string Root { get; } = Directory.CreateTempSubdirectory("memopt-hub").FullName;

    public HubServer Server { get; }

    public HubSettings Settings { get; set; }

    public ConcurrentQueue<string> Notes { get; } = new();

    public Action<string> Noted { get; set; } = _ => { };

    /// <summary>File, bytes so far, size, bytes resumed.</summary>
    public Action<string, long, long, long> Advanced { get; set; } = (_, _, _, _) => { };

    public Func<string, long>? FreeBytes { get; set; }

    /// <summary>One pull in what could be a process of its own.</summary>
    public async Task<Snapshot> PullAsync(
        string source = "org/model",
        string? revision = null,
        double speed = 50,
        CancellationToken stop = default
    )
    {
        using var hub = new ModelHub(Settings, new FastClock(speed), () => 0.5)
        {
            FreeBytes = FreeBytes ?? (_ => long.MaxValue),
        };
        return await hub.PullAsync(ModelSource.Parse(source, Root), revision, this, stop);
    }

    /// <summary>That exactly the needed files are there, each with the server's bytes.</summary>
    public void Same(Snapshot model)
    {
        Assert.Equal(Server.Needed, model.Files.Select(file => file.Path));
        foreach (var name in Server.Needed)
            Assert.True(
                Server.Files[name].Bytes.AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(model.Folder, name))),
                $"{name} differs"
            );
        Assert.Empty(Directory.EnumerateFiles(Root, "*.part", SearchOption.AllDirectories));
    }

    public void Note(string text)
    {
        Notes.Enqueue(text);
        Noted(text);
    }

    public void Advance(string file, long done, long size, long resumed) => Advanced(file, done, size, resumed);

    public void Dispose()
    {
        Server.Dispose();
        Directory.Delete(Root, recursive: true);
    }
}
