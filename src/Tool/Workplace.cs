using Memopt.Tracking;
using Memopt.Trainer;

namespace Memopt.Tool;

/// <summary>Where a config's store, artifacts and results lie.</summary>
internal static class Workplace
{
    public const string DefaultConfig = "memopt.json";

    /// <summary>Folder of the checkpoints and the adapter of a config file.</summary>
    public static string Output(LoadedConfig config) => Path.Combine(config.Folder, ".memopt", Path.GetFileNameWithoutExtension(config.File));

    public static LiteRunStore Store(LoadedConfig config) => new(config.Full(config.Config.Tracking.Store));

    /// <summary>The artifacts kept here: the config's folder, or the default one when they go to a storage account too.</summary>
    public static LocalArtifacts Artifacts(LoadedConfig config) => new(config.Full(BlobPlace.Is(config.Config.Tracking.Artifacts) ? new TrackingConfig().Artifacts : config.Config.Tracking.Artifacts));

    /// <summary>The artifacts beside the store named, or those of the config in this folder.</summary>
    public static LocalArtifacts Artifacts(string? store) => store is not null ? new(Path.Combine(Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(store)))!, "artifacts"))
        : File.Exists(DefaultConfig) ? Artifacts(RunConfigFile.Read(DefaultConfig, [], checkFiles: false)) : new(new TrackingConfig().Artifacts);

    /// <summary>A config's storage account with the local artifacts before it, or null when it names a folder.</summary>
    public static BlobArtifacts? Remote(LoadedConfig config, CancellationToken stop, Action<TrackingException>? unsent = null) =>
        BlobPlace.Is(config.Config.Tracking.Artifacts) ? Remote(config.Config.Tracking.Artifacts, Artifacts(config), stop, unsent) : null;

    public static BlobArtifacts Remote(string place, LocalArtifacts local, CancellationToken stop, Action<TrackingException>? unsent = null)
    {
        static string? Variable(string name) => Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;
        return new(local, BlobPlace.Parse(place) with { ConnectionString = Variable("AZURE_STORAGE_CONNECTION_STRING"), Sas = Variable("AZURE_STORAGE_SAS_TOKEN") }) { Stop = stop, Unsent = unsent };
    }

    /// <summary>The store named, or that of the config in this folder, or the default one.</summary>
    public static LiteRunStore Store(string? folder, bool create = false)
    {
        if (folder is null && File.Exists(DefaultConfig))
            return Store(RunConfigFile.Read(DefaultConfig, [], checkFiles: false));
        folder ??= new TrackingConfig().Store;
        return create || Directory.Exists(folder) ? new LiteRunStore(folder)
            : throw new UserFault("There is no run store here.", found: $"no folder {Path.GetFullPath(folder)}", next: "name one with --store, or train first: dotnet memopt run");
    }
}
