using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Runs;

/// <summary>Fetches the adapter, the model and the data sets that a config names. A rerun takes the commits and
/// versions of the run that it repeats, wherever branches and aliases have moved since.</summary>
internal sealed class InputResolver(RunLauncher launcher)
{
    private readonly List<RunEvent> events = [];

    public ResolvedInputs Resolve(CancellationToken stop)
    {
        var fetcher = new InputFetcher(
            ProcessEnvironment.HubSettings(launcher.Offline),
            () => launcher.Pulling(Retried)
        );
        var (config, version, parent) = Adapter(stop);
        var model = Model(config, fetcher, stop);
        config = fetcher.FetchData(config, stop, set => Recorded($"data.commit.{set}"));
        foreach (var data in config.Snapshots.Values)
            launcher.Observer.Stage(
                StageNames.Download,
                $"{data.Source} at {data.Commit}, {data.Files.Count} files, {data.FetchedBytes / 1048576.0:N1} "
                    + "MiB fetched"
            );
        return new(config, model, version, parent, events);
    }

    /// <summary>The config with the folder of the adapter that it starts from; which version that is, and the run that
    /// trained it.</summary>
    private (ProjectConfig Config, string? Version, RunParent? Parent) Adapter(CancellationToken stop)
    {
        var (config, parent) = (launcher.Config, launcher.Parent);
        if (config.Settings.Adapter.From is not { } from)
            return (config, null, parent);
        var repeated = from == Setting("adapter.from") ? Recorded("adapter.version") : null;
        var (folder, version, trainer) = AdapterSource.Resolve(
            repeated ?? from,
            config,
            launcher.Offline,
            launcher.Observer.Stage,
            stop
        );
        parent ??= trainer is null ? null : new RunParent(trainer, "fork");
        return (config with { StartingAdapter = folder }, version, parent);
    }

    private Snapshot Model(ProjectConfig config, InputFetcher fetcher, CancellationToken stop)
    {
        var (source, revision) = (
            ModelSource.Parse(config.Settings.Model.Source, config.Folder),
            config.Settings.Model.Revision
        );
        var repeated =
            Recorded("model.source") == $"{source}"
            && revision == Setting("model.revision")
            && source.Kind is SourceKind.HuggingFace or SourceKind.ModelScope
                ? Recorded("model.commit")
                : null;
        var model = fetcher.FetchModel(source, repeated ?? revision, stop);
        if (model.Commit is not null)
            launcher.Observer.Stage(
                StageNames.Download,
                $"{model.Source} at {model.Commit}, {model.FetchedBytes / 1048576.0:N1} MiB fetched"
            );
        return model;
    }

    private void Retried(string text)
    {
        lock (events)
            events.Add(new RunEvent(launcher.Clock.GetUtcNow(), 0, "download", Secrets.Redact(text)));
    }

    /// <summary>A fact of the run that is repeated, or null.</summary>
    private string? Recorded(string fact) =>
        launcher.Rerun?.Start.Environment.GetValueOrDefault(fact) is { } value and not "none" ? value : null;

    /// <summary>A setting of the run that is repeated, or null.</summary>
    private string? Setting(string name) => launcher.Rerun?.Params.GetValueOrDefault(name);
}
