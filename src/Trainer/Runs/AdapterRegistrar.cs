using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Runs;

/// <summary>Registers the adapters that runs leave.</summary>
internal static class AdapterRegistrar
{
    /// <summary>Makes a run's adapter the next version of its name; what cannot be registered ends no
    /// training.</summary>
    public static void Register(ProjectConfig config, IRunStore store, string id, ITrainingObserver observer)
    {
        if (config.Settings.Adapter.Kind == AdapterKind.None)
            return;
        try
        {
            if (
                store.Get(id) is not { } run
                || run.Artifacts.FirstOrDefault(link => link.Name == FineTuneJob.AdapterArtifact) is not { } link
            )
                return;
            var name = config.Settings.Tracking.Register ?? AdapterRegistry.NameOf(config.Settings.Tracking.Experiment);
            var registry = new AdapterRegistry(ArtifactStores.Artifacts(config).Folder);
            var before = registry.Find(name);
            if (
                registry.Register(name, link, run, config.Settings.Tracking.Best) is not { } version
                || registry.Find(name) is not { } adapter
                || adapter.Versions.Count <= (before?.Versions.Count ?? 0)
            )
                return;
            var aliases = adapter.Aliases.Where(alias => alias.Value == version.Number).Select(alias => alias.Key);
            observer.Stage(StageNames.Registered, $"{name}@{version.Number}: {string.Join(", ", aliases)}");
            if (adapter.NotCompared(before) is { } was)
                observer.Stage(
                    "",
                    $"{name}@{was.Number}, the best before, was judged on other evaluation data; the two are not "
                        + "compared"
                );
        }
        catch (TrackingException e)
        {
            observer.Stage(
                StageNames.Registry,
                $"{e.Message} Register it later: dotnet memopt adapters register NAME {id}"
            );
        }
    }
}
