namespace Memopt.Hub;

/// <summary>Models by name: finds one here, or brings it here whole and checked. Start reading at
/// <see cref="PullAsync"/>.</summary>
public sealed class ModelHub : IDisposable
{
    /// <summary>The small WordNet model that ships with the tool.</summary>
    public const string Nano = "embedded:nano";

    private readonly HubSettings settings;
    private readonly HubHttp http;
    private readonly Downloader downloader;
    private readonly Remotes remotes;
    private readonly CacheFetcher fetcher;

    /// <param name="settings">Addresses, tokens, folders.</param>
    /// <param name="clock">Time of all waits.</param>
    /// <param name="random">Gives numbers from 0 to 1 for the jitter.</param>
    public ModelHub(HubSettings settings, TimeProvider? clock = null, Func<double>? random = null)
    {
        this.settings = settings;
        clock ??= TimeProvider.System;
        http = new(settings, clock, random ?? Random.Shared.NextDouble);
        downloader = new(http, settings, clock);
        remotes = new(settings, http);
        fetcher = new(new BlobFetcher(downloader, settings, clock));
    }

    /// <summary>Free bytes on the disk of a folder.</summary>
    public Func<string, long> FreeBytes
    {
        get => fetcher.FreeBytes;
        init => fetcher.FreeBytes = value;
    }

    /// <summary>Brings what a plan needs, config.json and generation_config.json: a few KB.</summary>
    public Task<Snapshot> ConfigAsync(
        ModelSource source,
        string? revision,
        IPullWatcher watcher,
        CancellationToken stop
    ) => BringAsync(new(source, revision, ModelParts.Config), watcher, stop);

    /// <summary>Brings what turns text into tokens beside that: tokenizer and chat template, a few MB.</summary>
    public Task<Snapshot> TextAsync(
        ModelSource source,
        string? revision,
        IPullWatcher watcher,
        CancellationToken stop
    ) => BringAsync(new(source, revision, ModelParts.Text), watcher, stop);

    /// <summary>Brings the whole model: config, tokenizer, weights.</summary>
    public Task<Snapshot> PullAsync(
        ModelSource source,
        string? revision,
        IPullWatcher watcher,
        CancellationToken stop
    ) => BringAsync(new(source, revision, ModelParts.All), watcher, stop);

    /// <summary>Brings the files of a data set that a source means: rows only, never code. The files given are those,
    /// in order of their names.</summary>
    public async Task<Snapshot> DataAsync(HubDataSet source, IPullWatcher watcher, CancellationToken stop)
    {
        http.Retrying = watcher.Note;
        return await new DataPull(source, remotes.Of(source), fetcher)
            .RunAsync(settings.Offline, watcher, stop)
            .ConfigureAwait(false);
    }

    /// <summary>What is in the caches.</summary>
    public CachedModels Cached() => new(settings);

    public void Dispose()
    {
        downloader.Dispose();
        http.Dispose();
    }

    private async Task<Snapshot> BringAsync(ModelRequest request, IPullWatcher watcher, CancellationToken stop)
    {
        var source = request.Source;
        if (source.Kind == SourceKind.Embedded)
            return new(Nano, Path.Combine(settings.Program, "models", "nano"), null, []);
        if (source.Kind == SourceKind.Folder)
            return new(source.Name, source.Name, null, []);
        http.Retrying = watcher.Note;
        var remote = await remotes.OfAsync(source, stop).ConfigureAwait(false);
        return await new ModelPull(request, remote, fetcher)
            .RunAsync(settings.Offline, watcher, stop)
            .ConfigureAwait(false);
    }
}
