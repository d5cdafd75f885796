using Memopt.Tracking;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer;

/// <summary>Where a config's store, artifacts and results lie.</summary>
public static class ProjectPaths
{
    /// <summary>Folder of the checkpoints and the adapter of a config file.</summary>
    public static string Output(string configFile) =>
        Path.Combine(
            Path.GetDirectoryName(Path.GetFullPath(configFile))!,
            ".memopt",
            Path.GetFileNameWithoutExtension(configFile)
        );

    /// <summary>The config file whose training leaves its adapter in a folder; null when there is none.</summary>
    public static string? ProducerConfig(string adapter)
    {
        var folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(adapter));
        var config = Path.GetDirectoryName(folder) is { } output
            ? Path.GetFullPath(Path.Combine(output, "..", "..", Path.GetFileName(output) + ".json"))
            : null;
        return File.Exists(config) && folder == Path.Combine(Output(config), "adapter") ? config : null;
    }

    public static LiteRunStore Store(LoadedConfig config) => new(config.Full(config.Config.Tracking.Store));

    /// <summary>The artifacts kept here: the config's folder, or the default one when they go to a storage account
    /// too.</summary>
    public static LocalArtifacts Artifacts(LoadedConfig config) =>
        new(
            config.Full(
                BlobLocation.Is(config.Config.Tracking.Artifacts)
                    ? new TrackingConfig().Artifacts
                    : config.Config.Tracking.Artifacts
            )
        );

    /// <summary>A config's storage account with the local artifacts before it, or null when it names a
    /// folder.</summary>
    /// <param name="config">The config.</param>
    /// <param name="stop">Ends transfers.</param>
    /// <param name="attempts">Of each request: eight are a minute.</param>
    public static BlobArtifacts? Remote(LoadedConfig config, CancellationToken stop, int attempts = 8) =>
        BlobLocation.Is(config.Config.Tracking.Artifacts)
            ? new(Artifacts(config), ProcessEnvironment.BlobPlace(config.Config.Tracking.Artifacts), attempts)
            {
                Stop = stop,
            }
            : null;

    /// <summary>Sends what a config's trainings leave to its storage account, beginning with what is still unsent; null
    /// when it names a folder.</summary>
    public static BackgroundUpload? Uploads(LoadedConfig config, IRunStore store, Action<string> report) =>
        BlobLocation.Is(config.Config.Tracking.Artifacts)
            ? new(Artifacts(config), ProcessEnvironment.BlobPlace(config.Config.Tracking.Artifacts), store, report)
            : null;

    /// <summary>Waits for what is being sent and says what is not safe.</summary>
    public static IReadOnlyList<PendingUpload> Finish(
        BackgroundUpload uploads,
        LoadedConfig config,
        ITrainingObserver observer,
        CancellationToken stop
    )
    {
        if (uploads.Waiting is > 0 and var waiting)
            observer.Stage(
                "upload",
                $"{waiting} still on the way to {config.Config.Tracking.Artifacts}; Ctrl+C leaves them to: dotnet "
                    + "memopt artifacts sync"
            );
        var left = uploads.Finish(
            TimeSpan.FromHours(config.Config.Tracking.UploadHours),
            (done, total) => observer.Progress("upload, KiB", done >> 10, total >> 10),
            stop
        );
        if (left.Count == 0)
        {
            // After the content: what the registry names in the account is there.
            TrySync(Registry(config, stop), null, text => observer.Stage("registry", text));
            observer.Stage("upload", $"everything is in {config.Config.Tracking.Artifacts}");
            return left;
        }
        var names = string.Join(", ", left.Select(one => $"{one.Upload.Link.Name} of run {one.Upload.Run}"));
        observer.Stage("upload", $"NOT in {config.Config.Tracking.Artifacts}: {names}; on this machine only");
        if (left.Select(one => one.Why).OfType<string>().FirstOrDefault() is { } why)
            observer.Stage("upload", why);
        var first = left.Select(one => one.Next)
            .OfType<string>()
            .FirstOrDefault(next => !next.Contains("artifacts sync", StringComparison.Ordinal));
        observer.Stage("upload", $"next: {(first is null ? "" : first + "; then: ")}dotnet memopt artifacts sync");
        return left;
    }

    /// <summary>A config's registry of adapters, shared through its storage account when it names one.</summary>
    public static AdapterRegistry Registry(LoadedConfig config, CancellationToken stop) =>
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

    /// <summary>The config with the adapter that it starts from located, brought here first where it is registered
    /// elsewhere. One that another config is still to make is left.
    /// </summary>
    public static LoadedConfig Start(
        LoadedConfig config,
        bool offline,
        Action<string, string> report,
        CancellationToken stop
    ) =>
        config.Config.Adapter.From is not { } from
        || (!Directory.Exists(config.Full(from)) && ProducerConfig(config.Full(from)) is not null)
            ? config
            : config with
            {
                From = Adapter(from, config, offline, report, stop).Folder,
            };

    /// <summary>An adapter's folder: the one named, or that of a registered adapter, which is brought here; which
    /// version that is, and the run that made it, when they are known.</summary>
    /// <param name="adapter">A folder, NAME, NAME@alias or NAME@number.</param>
    /// <param name="config">The config that a folder is relative to.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="report">Told what passes: stage and text.</param>
    /// <param name="stop">Ends a download.</param>
    public static (string Folder, string? Version, string? Run) Adapter(
        string adapter,
        LoadedConfig config,
        bool offline,
        Action<string, string> report,
        CancellationToken stop
    )
    {
        var folder = config.Full(adapter);
        if (!Directory.Exists(folder) && ProducerConfig(folder) is { } maker)
            throw new UserFault(
                $"adapter.from is the result of {maker}, which has not been trained.",
                next: $"dotnet memopt run {maker}"
            )
            {
                Failed = true,
            };
        if (Directory.Exists(folder) || !AdapterRegistry.IsReference(adapter))
            return (folder, null, null);
        var local = Artifacts(config);
        var account = offline ? null : Remote(config, stop);
        var registry = account is null ? new AdapterRegistry(local.Folder) : Registry(config, stop);
        TrySync(registry, adapter.Split('@')[0], text => report("registry", text));
        var (name, version) = registry.Resolve(adapter);
        account?.Pull(version.Hash);
        report(
            "adapter",
            $"{name}@{version.Number}, {version.Hash[..12]}{(version.Run is { } run ? $", of run {run}" : "")}"
        );
        return (local.Unpacked(version.Hash), $"{name}@{version.Number}", version.Run);
    }
}
