using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Runs;

/// <summary>Opens the run store, the artifact stores and the adapter registry that a config names.</summary>
internal static class ArtifactStores
{
    public static LiteRunStore Store(ProjectConfig config) => new(config.Full(config.Settings.Tracking.Store));

    /// <summary>The artifacts kept here: the config's folder, or the default one when they go to a storage account
    /// too.</summary>
    public static LocalArtifacts Artifacts(ProjectConfig config) =>
        new(
            config.Full(
                BlobLocation.Is(config.Settings.Tracking.Artifacts)
                    ? new TrackingConfig().Artifacts
                    : config.Settings.Tracking.Artifacts
            )
        );

    /// <summary>A config's storage account with the local artifacts before it, or null when it names a
    /// folder.</summary>
    /// <param name="config">The config.</param>
    /// <param name="stop">Ends transfers.</param>
    /// <param name="attempts">Of each request: eight are a minute.</param>
    public static BlobArtifacts? Remote(ProjectConfig config, CancellationToken stop, int attempts = 8) =>
        BlobLocation.Is(config.Settings.Tracking.Artifacts)
            ? new(Artifacts(config), ProcessEnvironment.BlobPlace(config.Settings.Tracking.Artifacts), attempts)
            {
                Stop = stop,
            }
            : null;

    /// <summary>Sends what a config's trainings leave to its storage account, beginning with what is still unsent; null
    /// when it names a folder.</summary>
    public static BackgroundUpload? Uploads(ProjectConfig config, IRunStore store, Action<string> report) =>
        BlobLocation.Is(config.Settings.Tracking.Artifacts)
            ? new(Artifacts(config), ProcessEnvironment.BlobPlace(config.Settings.Tracking.Artifacts), store, report)
            : null;

    /// <summary>Waits for what is being sent and says what is not safe.</summary>
    public static IReadOnlyList<PendingUpload> Finish(
        BackgroundUpload uploads,
        ProjectConfig config,
        ITrainingObserver observer,
        CancellationToken stop
    )
    {
        if (uploads.Waiting is > 0 and var waiting)
            observer.Stage(
                StageNames.Upload,
                $"{waiting} still on the way to {config.Settings.Tracking.Artifacts}; Ctrl+C leaves them to: dotnet "
                    + "memopt artifacts sync"
            );
        var left = uploads.Finish(
            TimeSpan.FromHours(config.Settings.Tracking.UploadHours),
            (done, total) => observer.Progress("upload, KiB", done >> 10, total >> 10),
            stop
        );
        if (left.Count == 0)
        {
            // After the content: what the registry names in the account is there.
            TrySync(Registry(config, stop), null, text => observer.Stage(StageNames.Registry, text));
            observer.Stage(StageNames.Upload, $"everything is in {config.Settings.Tracking.Artifacts}");
            return left;
        }
        var names = string.Join(", ", left.Select(one => $"{one.Upload.Link.Name} of run {one.Upload.Run}"));
        observer.Stage(
            StageNames.Upload,
            $"NOT in {config.Settings.Tracking.Artifacts}: {names}; on this machine only"
        );
        if (left.Select(one => one.Why).OfType<string>().FirstOrDefault() is { } why)
            observer.Stage(StageNames.Upload, why);
        var first = left.Select(one => one.Next)
            .OfType<string>()
            .FirstOrDefault(next => !next.Contains("artifacts sync", StringComparison.Ordinal));
        observer.Stage(
            StageNames.Upload,
            $"next: {(first is null ? "" : first + "; then: ")}dotnet memopt artifacts sync"
        );
        return left;
    }

    /// <summary>A config's registry of adapters, shared through its storage account when it names one.</summary>
    public static AdapterRegistry Registry(ProjectConfig config, CancellationToken stop) =>
        new(Artifacts(config).Folder, Remote(config, stop, attempts: 3));

    /// <summary>Lets a registry and its storage account know the same; says so when they cannot meet, and what is known
    /// here counts.</summary>
    public static void TrySync(AdapterRegistry registry, string? name, Action<string> report)
    {
        try
        {
            registry.Sync(name);
        }
        catch (TrackingException e)
        {
            report($"{e.Message} The registry of adapters is what this machine knows of it.");
        }
    }
}
