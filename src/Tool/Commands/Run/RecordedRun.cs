using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary>A run that is to be trained once more.</summary>
internal static class RecordedRun
{
    /// <summary>The run of that id in the config's store, or in the project's where there is no config.</summary>
    /// <exception cref="UserFault">There is none, or it is a sweep.</exception>
    public static Run Find(string file, string id)
    {
        using var store = File.Exists(file)
            ? ArtifactStores.Store(RunConfigFile.Read(file, [], checkFiles: false))
            : CurrentProject.Store((string?)null);
        var run = RunsCommand.Need(store, id);
        return run.Start.Tags.GetValueOrDefault("kind") != "sweep"
            ? run
            : throw new UserFault(
                $"Run {run.Start.Id} is a sweep.",
                next: "train a part of it, or all of it: dotnet memopt sweep FILE --from-start"
            );
    }

    /// <summary>A recorded run's settings, with overrides; paths are relative to the config's folder.</summary>
    public static ProjectConfig Settings(string file, Run run, string[] overrides)
    {
        var config = RunConfigFile.Recorded(
            Path.Combine(Path.GetDirectoryName(file) ?? "", $"run-{run.Start.Id}"),
            run.Start.Config,
            overrides
        );
        return
            ConfigWriter
                .Flat(config.Settings)
                .FirstOrDefault(setting =>
                    setting.Key != "tracking.tags" && setting.Value.Contains(Secrets.Redacted, StringComparison.Ordinal)
                )
                is not { Key: { } secret }
            ? config
            : throw new UserFault(
                $"{secret} had a secret in it, which is not recorded.",
                found: Secrets.Redacted,
                next: $"give it again: --set {secret}=…"
            );
    }
}
