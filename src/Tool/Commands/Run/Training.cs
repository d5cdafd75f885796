using Memopt.Core;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary>A training as <c>run</c> and <c>sweep</c> begin it.</summary>
internal sealed record Training
{
    /// <summary>The config, with what the command line changed.</summary>
    public required ProjectConfig Config { get; init; }

    /// <summary>The folder of checkpoints and result.</summary>
    public required string Output { get; init; }

    /// <summary>Whether checkpoints are left aside.</summary>
    public required bool FromStart { get; init; }

    /// <summary>The backend asked for, or null.</summary>
    public required string? Backend { get; init; }

    /// <summary>Whether no server is asked.</summary>
    public required bool Offline { get; init; }

    /// <summary>The run that this one came from, or null.</summary>
    public RunParent? Parent { get; init; }

    /// <summary>The run that is made once more, or null; what it took of moving branches and aliases is taken
    /// again.</summary>
    public Run? Rerun { get; init; }

    /// <summary>Brings what the config names and trains it; going on from the last checkpoint in its folder.</summary>
    /// <param name="view">Shows the progress.</param>
    /// <param name="stop">Ends it after the step.</param>
    public Result Run(IRunView view, CancellationToken stop)
    {
        using var store = ArtifactStores.Store(Config);
        using var log = new RunLog(view, store, ProcessEnvironment.RankPlace()?.Rank ?? 0);
        using var stopping = stop.Register(() =>
            view.Stage(
                StageNames.Stopping,
                "after this step, with a checkpoint; Ctrl+C after some seconds ends it at once"
            )
        );
        TellConfig(log);
        return new RunLauncher
        {
            Config = Config,
            Output = Output,
            Store = store,
            Observer = log,
            Pulling = view.Download,
            Backend = Backend,
            Offline = Offline,
            FromStart = FromStart,
            Parent = Parent,
            Rerun = Rerun,
        }.Run(stop);
    }

    private void TellConfig(ITrainingObserver observer)
    {
        observer.Stage(StageNames.Config, Config.File);
        foreach (var change in Config.Overrides)
            observer.Stage(
                "",
                $"{change.Key}  {Secrets.Redact(change.Key, change.Old)} -> "
                    + $"{Secrets.Redact(change.Key, change.New)}   ({change.From})"
            );
    }
}
