using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Cli;

/// <summary>The config, the store, the artifacts and the adapter that a command means, when it may name them or leave
/// them out.</summary>
internal static class CurrentProject
{
    public const string DefaultConfig = "memopt.json";

    /// <summary>The nearest memopt.json, as a path from the current folder; null when no folder has one. See
    /// <see cref="Above"/>.</summary>
    public static string? ConfigFile => Above(DefaultConfig) is { } folder ? From(folder, DefaultConfig) : null;

    /// <summary>The config that a command means which names none: the nearest memopt.json, or the one in this folder
    /// that is missing.</summary>
    public static string Config => ConfigFile ?? DefaultConfig;

    /// <summary>The nearest folder with a config or a store; the current one when there is none.</summary>
    private static string Project => Above(DefaultConfig, new TrackingConfig().Store) ?? Environment.CurrentDirectory;

    /// <summary>The nearest folder that has one of these files or folders: the current one, or one above it, as git
    /// finds its repository. A folder above in which everybody may write, such as /tmp, is passed over: what lies there
    /// may be a stranger's. Null when there is none.
    /// </summary>
    public static string? Above(params IReadOnlyList<string> names)
    {
        var here = Environment.CurrentDirectory;
        for (var folder = here; folder is not null; folder = Path.GetDirectoryName(folder))
        {
            if (names.Any(name => Path.Exists(Path.Combine(folder, name))) && (folder == here || !Shared(folder)))
                return folder;
        }
        return null;

        static bool Shared(string folder) =>
            !OperatingSystem.IsWindows() && File.GetUnixFileMode(folder).HasFlag(UnixFileMode.OtherWrite);
    }

    /// <summary>The artifacts beside the store named, or those of the project.</summary>
    public static LocalArtifacts Artifacts(string? store) =>
        store is not null ? new(Path.Combine(Path.GetDirectoryName(StoreFolder(store))!, "artifacts"))
        : Here() is { } config ? ArtifactStores.Artifacts(config)
        : new(Path.Combine(Project, new TrackingConfig().Artifacts));

    /// <summary>The project's config, or null.</summary>
    public static ProjectConfig? Here() =>
        From(Project, DefaultConfig) is var file && File.Exists(file)
            ? RunConfigFile.Read(file, [], checkFiles: false)
            : null;

    /// <summary>The folder of the store named, or of the project's, whether it is there or not.</summary>
    public static string StoreFolder(string? named) =>
        Path.TrimEndingDirectorySeparator(
            named is not null ? Path.GetFullPath(named)
            : Here() is { } config ? config.Full(config.Settings.Tracking.Store)
            : Path.Combine(Project, new TrackingConfig().Store)
        );

    /// <summary>The project's run store; null when there is none yet.</summary>
    public static LiteRunStore? Known() =>
        StoreFolder(null) is var folder && Directory.Exists(folder) ? new LiteRunStore(folder) : null;

    /// <summary>The content that this machine knows a registered adapter to have, or "unknown".</summary>
    public static string KnownHash(ProjectConfig config, string adapter)
    {
        try
        {
            return new AdapterRegistry(ArtifactStores.Artifacts(config).Folder).Resolve(adapter).Version.Hash;
        }
        catch (TrackingException)
        {
            return "unknown";
        }
    }

    /// <summary>An adapter's folder: the one named, or that of a registered adapter, which is brought here.</summary>
    /// <param name="adapter">A folder, NAME, NAME@alias or NAME@number.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="view">Shows the download.</param>
    public static string Adapter(string adapter, bool offline, ITrainingObserver view)
    {
        // A folder needs no config, which may be one that cannot be read.
        var folder = Path.GetFullPath(adapter);
        if (!Directory.Exists(folder) && ProjectPaths.ProducerConfig(folder) is { } maker)
            return Result(maker);
        return Directory.Exists(folder) || !AdapterRegistry.IsReference(adapter)
            ? folder
            : AdapterSource
                .Resolve(adapter, Here() ?? RunConfigFile.Default([]), offline, view.Stage, CancellationToken.None)
                .Folder;
    }

    /// <summary>The store named, or the project's. Throws when it is not there, unless a config or the caller says that
    /// it will be.</summary>
    public static LiteRunStore Store(string? named, bool create = false)
    {
        var folder = StoreFolder(named);
        return create || Directory.Exists(folder) || named is null && Here() is not null
            ? new LiteRunStore(folder)
            : throw new UserFault(
                "There is no run store here.",
                found: $"no folder {folder}{(named is null ? ", nor a store or memopt.json in a folder above" : "")}",
                next: "name one with --store, or train first: dotnet memopt run"
            );
    }

    /// <summary>The folder of what a config's training left.</summary>
    /// <exception cref="UserFault">It has not been trained.</exception>
    public static string Result(string config)
    {
        var folder = Path.Combine(ProjectPaths.Output(config), "adapter");
        return Directory.Exists(folder)
            ? folder
            : throw new UserFault(
                $"{config} is not trained yet.",
                found: $"no folder {folder}",
                next: $"dotnet memopt run {config}"
            )
            {
                Failed = true,
            };
    }

    private static string From(string folder, string file) =>
        Path.GetRelativePath(Environment.CurrentDirectory, Path.Combine(folder, file));
}
