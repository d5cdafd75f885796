using Memopt.Tracking;
using Memopt.Trainer;
using Spectre.Console;

namespace Memopt.Tool;

/// <summary>The store, the artifacts and the adapter that a command means, when it may name them or leave them out.</summary>
internal static class Workplace
{
    public const string DefaultConfig = "memopt.json";

    /// <summary>The artifacts beside the store named, or those of the config in this folder.</summary>
    public static LocalArtifacts Artifacts(string? store) => store is not null ? new(Path.Combine(Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(store)))!, "artifacts"))
        : File.Exists(DefaultConfig) ? Storage.Artifacts(RunConfigFile.Read(DefaultConfig, [], checkFiles: false)) : new(new TrackingConfig().Artifacts);

    /// <summary>The config in this folder, or null.</summary>
    public static LoadedConfig? Here() => File.Exists(DefaultConfig) ? RunConfigFile.Read(DefaultConfig, [], checkFiles: false) : null;

    /// <summary>The run store of this folder's config, or the default one; null when there is none yet.</summary>
    public static LiteRunStore? Known()
    {
        var folder = Here() is { } config ? config.Full(config.Config.Tracking.Store) : new TrackingConfig().Store;
        return Directory.Exists(folder) ? new LiteRunStore(folder) : null;
    }

    /// <summary>The content that this machine knows a registered adapter to have, or "unknown".</summary>
    public static string KnownHash(LoadedConfig config, string adapter)
    {
        try
        {
            return new AdapterRegistry(Storage.Artifacts(config).Folder).Resolve(adapter).Version.Hash;
        }
        catch (TrackingException)
        {
            return "unknown";
        }
    }

    /// <summary>An adapter's folder: the one named, or that of a registered adapter, which is brought here.</summary>
    /// <param name="adapter">A folder, NAME, NAME@alias or NAME@number.</param>
    /// <param name="offline">Whether no server is asked.</param>
    public static string Adapter(string adapter, bool offline)
    {
        // A folder needs no config, which may be one that cannot be read.
        var folder = Path.GetFullPath(adapter);
        return Directory.Exists(folder) || !AdapterRegistry.IsReference(adapter) ? folder
            : Storage.Adapter(adapter, Here() ?? RunConfigFile.Default([]), offline, (stage, text) => Shell.Progress.MarkupLineInterpolated($"[bold]{stage,-12}[/] {text}"), CancellationToken.None).Folder;
    }

    /// <summary>The store named, or that of the config in this folder, or the default one.</summary>
    public static LiteRunStore Store(string? folder, bool create = false)
    {
        if (folder is null && File.Exists(DefaultConfig))
            return Storage.Store(RunConfigFile.Read(DefaultConfig, [], checkFiles: false));
        folder ??= new TrackingConfig().Store;
        return create || Directory.Exists(folder) ? new LiteRunStore(folder)
            : throw new UserFault("There is no run store here.", found: $"no folder {Path.GetFullPath(folder)}", next: "name one with --store, or train first: dotnet memopt run");
    }
}
