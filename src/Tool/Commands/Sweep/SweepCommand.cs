using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.Sweeps;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>sweep</c>: trains each combination of a sweep file as <c>run</c> would, one after another, and names the
/// best.</summary>
internal sealed class SweepCommand
{
    private readonly Argument<string> file = new("file") { Description = "The sweep file." };
    private readonly Option<bool> dry = new("--dry-run") { Description = "List the combinations and train none." };
    private readonly Option<bool> fromStart = new("--from-start")
    {
        Description = "Train combinations again that are trained already.",
    };
    private readonly Option<string?> backend = Shell.BackendOption();
    private readonly Option<bool> offline = Shell.OfflineOption();
    private readonly Option<ProgressFormat> progress = Shell.ProgressOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new SweepCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "sweep",
            "Train each combination of settings as a run and name the best. Resumes after a stop or a kill."
                + "\n\nExample:\n  dotnet memopt sweep rates.json\n  best: 3  train.learningRate=2e-4  "
                + "adapter.rank=16  eval_loss 0.0913\n  "
                + "dotnet memopt sweep rates.json --progress json 2> progress.jsonl"
        )
        {
            file,
            dry,
            fromStart,
            backend,
            offline,
            progress,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var sweep = SweepFile.Read(parsed.GetValue(file)!);
        if (parsed.GetValue(dry))
            return List(sweep, parsed.GetValue(json));
        if (ProcessEnvironment.RankPlace() is { Size: > 1 } place)
            throw new UserFault(
                "A sweep trains on one process.",
                found: $"rank {place.Rank} of {place.Size}, started by {place.Launcher}",
                next: "start it without mpirun, srun or torchrun; dotnet memopt run trains on several ranks"
            );
        var options = new SweepOptions(
            parsed.GetValue(fromStart),
            parsed.GetValue(backend),
            parsed.GetValue(offline),
            parsed.GetValue(json)
        );
        var view = IRunView.For(parsed.GetValue(progress));
        using var one = view.EndStopped(() => RunLock.Acquire(SweepRun.FolderOf(sweep), view, stop));
        using var store = ArtifactStores.Store(sweep.Base);
        return new SweepRun(sweep, options, store, view, stop).Run();
    }

    private static int List(LoadedSweep sweep, bool json)
    {
        if (json)
            Shell.Print(
                new
                {
                    name = sweep.Name,
                    combinations = sweep.Combinations.Select(one => new
                    {
                        number = one.Number,
                        parameters = SweepChild.ParametersOf(one),
                    }),
                }
            );
        else
        {
            foreach (var combination in sweep.Combinations)
                Shell.Output.WriteLine($"{combination.Number.ToString().PadLeft(4)}  {combination}");
        }
        return 0;
    }
}
