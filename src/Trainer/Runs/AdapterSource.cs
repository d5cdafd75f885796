using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Runs;

/// <summary>Finds the folder of an adapter that a user names: a folder, or a registered name.</summary>
internal static class AdapterSource
{
    /// <summary>The config with the adapter that it starts from located, brought here first where it is registered
    /// elsewhere. One that another config is still to make is left.
    /// </summary>
    public static ProjectConfig Locate(
        ProjectConfig config,
        bool offline,
        Action<string, string> report,
        CancellationToken stop
    ) =>
        config.Settings.Adapter.From is not { } from
        || (!Directory.Exists(config.Full(from)) && ProjectPaths.ProducerConfig(config.Full(from)) is not null)
            ? config
            : config with
            {
                StartingAdapter = Resolve(from, config, offline, report, stop).Folder,
            };

    /// <summary>An adapter's folder: the one named, or that of a registered adapter, which is brought here; which
    /// version that is, and the run that made it, when they are known.</summary>
    /// <param name="adapter">A folder, NAME, NAME@alias or NAME@number.</param>
    /// <param name="config">The config that a folder is relative to.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="report">Receives reports: stage and text.</param>
    /// <param name="stop">Ends a download.</param>
    public static (string Folder, string? Version, string? Run) Resolve(
        string adapter,
        ProjectConfig config,
        bool offline,
        Action<string, string> report,
        CancellationToken stop
    )
    {
        var folder = config.Full(adapter);
        if (!Directory.Exists(folder) && ProjectPaths.ProducerConfig(folder) is { } maker)
            throw new UserFault(
                $"adapter.from is the result of {maker}, which has not been trained.",
                next: $"dotnet memopt run {maker}"
            )
            {
                Failed = true,
            };
        if (Directory.Exists(folder) || !AdapterRegistry.IsReference(adapter))
            return (folder, null, null);
        var local = ArtifactStores.Artifacts(config);
        var account = offline ? null : ArtifactStores.Remote(config, stop);
        var registry = account is null ? new AdapterRegistry(local.Folder) : ArtifactStores.Registry(config, stop);
        ArtifactStores.TrySync(registry, adapter.Split('@')[0], text => report(StageNames.Registry, text));
        var (name, version) = registry.Resolve(adapter);
        account?.Pull(version.Hash);
        report(
            StageNames.Adapter,
            $"{name}@{version.Number}, {version.Hash[..12]}{(version.Run is { } run ? $", of run {run}" : "")}"
        );
        return (local.Unpacked(version.Hash), $"{name}@{version.Number}", version.Run);
    }
}
