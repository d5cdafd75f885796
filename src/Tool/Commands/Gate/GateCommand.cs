using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>gate</c>: whether the result of a config is good enough, for a build that must fail when it is
/// not.</summary>
internal sealed class GateCommand
{
    private readonly Argument<string> file = ConfigCommand.FileArgument();
    private readonly Option<string[]> set = Shell.SetOption("A setting that the training overrode (repeatable).");
    private readonly Option<double?> accuracy = Shell.NumberOption<double>(
        "--min-accuracy",
        "Lowest accepted share of correct evaluation answers, 0 to 1.",
        "a number from 0 to 1",
        number => number is >= 0 and <= 1
    );
    private readonly Option<double?> loss = Shell.NumberOption<double>(
        "--max-eval-loss",
        "Highest accepted loss on the evaluation data.",
        "a number",
        double.IsFinite
    );
    private readonly Option<bool> regression = new("--no-regression")
    {
        Description =
            "Fail when accuracy (or else the loss) is worse than the best finished run of this experiment on "
            + "the same evaluation data.",
    };
    private readonly Option<double> tolerance = Shell.NumberOption(
        "--tolerance",
        "Allowed regression from the best run.",
        0.0,
        "0 or more",
        number => number >= 0
    );
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new GateCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "gate",
            "Fail when the last evaluation of a trained config is outside the bounds.\n\nExample:\n  "
                + "dotnet memopt gate memopt.json --min-accuracy 0.8 --no-regression\n  "
                + "memopt.json: error MEMOPT0013: accuracy 0.7125 is below 0.8631 of run 2611251…"
        )
        {
            file,
            set,
            accuracy,
            loss,
            regression,
            tolerance,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        var config = RunConfigFile.Read(parsed.GetValue(file)!, parsed.GetValue(set) ?? [], checkFiles: false);
        using var store = ArtifactStores.Store(config);
        var run = Finished(config, store);
        var problems = new GateJudgement(config, store, run, Bounds(parsed)).Problems();
        if (problems.Count > 0)
            throw new UserFault($"Run {run.Start.Id} does not pass.", next: $"dotnet memopt runs show {run.Start.Id}")
            {
                Failed = true,
                Problems = problems,
            };
        if (parsed.GetValue(json))
            Print(run);
        else
            Show(run);
        return 0;
    }

    private static Run Finished(ProjectConfig config, LiteRunStore store)
    {
        var last = new CheckpointFolder(
            Path.Combine(ProjectPaths.Output(config.File), "checkpoints"),
            config.Settings.Checkpoint.Keep
        ).Latest();
        return last is { } found && store.Get(found.Manifest.RunId) is { Status: RunStatus.Finished } run
            ? run
            : throw new UserFault(
                $"{config.File} has not been trained to its end.",
                found: last is null ? "no checkpoint" : $"a checkpoint of step {last.Value.Manifest.Step}",
                next: $"dotnet memopt run {config.File}"
            )
            {
                Failed = true,
            };
    }

    private GateBounds Bounds(ParseResult parsed) =>
        new(parsed.GetValue(accuracy), parsed.GetValue(loss), parsed.GetValue(regression), parsed.GetValue(tolerance));

    private static void Print(Run run) =>
        Shell.Print(
            new
            {
                runId = run.Start.Id,
                passed = true,
                eval = run.Eval,
            }
        );

    private static void Show(Run run)
    {
        var values = run.Eval.Select(value => $"{value.Key} {GateJudgement.Text(value.Value)}");
        Console.Out.WriteLine($"run {run.Start.Id} passes: {string.Join(", ", values)}");
    }
}
