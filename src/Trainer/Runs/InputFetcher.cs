using Memopt.Hub;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Runs;

/// <summary>Brings what something is to be done with before it is done; waits for it.</summary>
/// <param name="settings">Where models come from and are kept.</param>
/// <param name="watching">Makes the watcher of one download; disposed after it when it can be.</param>
internal sealed class InputFetcher(HubSettings settings, Func<IPullWatcher> watching)
{
    /// <summary>The model; what is a folder already is only named.</summary>
    public Snapshot FetchModel(ModelSource source, string? revision, CancellationToken stop) =>
        Bring(source.Remote, (hub, watcher) => hub.PullAsync(source, revision, watcher, stop));

    /// <summary>A model's config, tokenizer and template without its weights.</summary>
    public Snapshot Text(ModelSource source, string? revision, CancellationToken stop) =>
        Bring(watched: false, (hub, watcher) => hub.TextAsync(source, revision, watcher, stop));

    /// <summary>A model's config alone.</summary>
    public Snapshot Config(ModelSource source, string? revision, CancellationToken stop) =>
        Bring(watched: false, (hub, watcher) => hub.ConfigAsync(source, revision, watcher, stop));

    /// <summary>A data set of the hub.</summary>
    public Snapshot FetchData(HubDataSet source, CancellationToken stop) =>
        Bring(watched: true, (hub, watcher) => hub.DataAsync(source, watcher, stop));

    /// <summary>The config with the data sets that its rows come from, brought here.</summary>
    /// <param name="config">Names the sources.</param>
    /// <param name="stop">Ends it.</param>
    /// <param name="commit">The commit to take of a source, or null for what its name says.</param>
    public ProjectConfig FetchData(ProjectConfig config, CancellationToken stop, Func<string, string?>? commit = null)
    {
        var sources = config
            .Settings.Data.Sources.Where(source => source.Remote)
            .Select(source => source.Source)
            .Distinct();
        return config with
        {
            Snapshots = sources.ToDictionary(
                source => source,
                source =>
                    FetchData(
                        HubDataSet.Parse(source) is var named && commit?.Invoke(source) is { } at
                            ? named with
                            {
                                Revision = at,
                            }
                            : named,
                        stop
                    )
            ),
        };
    }

    private Snapshot Bring(bool watched, Func<ModelHub, IPullWatcher, Task<Snapshot>> pull)
    {
        using var hub = new ModelHub(settings);
        var watcher = watched ? watching() : new NullDownloadProgress();
        using (watcher as IDisposable)
            return pull(hub, watcher).GetAwaiter().GetResult();
    }

    /// <summary>Says nothing: for what is here already or takes no time.</summary>
    private sealed class NullDownloadProgress : IPullWatcher
    {
        public void Note(string text) { }

        public void Advance(string file, long done, long size, long resumed) { }
    }
}
