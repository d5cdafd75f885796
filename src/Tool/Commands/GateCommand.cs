using System.CommandLine;
using System.Globalization;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>gate</c>: whether the result of a config is good enough, for a build that must fail when it is
/// not.</summary>
internal static class GateCommand
{
    private sealed record Bounds(double? MinAccuracy, double? MaxEvalLoss, bool NoRegression, double Tolerance);

    public static Command Create()
    {
        var (file, set, json) = (
            ConfigCommand.FileArgument(),
            Shell.SetOption("Settings that it was trained with."),
            Shell.JsonOption()
        );
        var accuracy = Shell.NumberOption<double>(
            "--min-accuracy",
            "Least share of evaluation answers that are right, 0 to 1.",
            "a number from 0 to 1",
            number => number is >= 0 and <= 1
        );
        var loss = Shell.NumberOption<double>(
            "--max-eval-loss",
            "Greatest loss on the evaluation data.",
            "a number",
            double.IsFinite
        );
        var regression = new Option<bool>("--no-regression")
        {
            Description =
                "Fail when accuracy (or else the loss) is worse than the best finished run of this experiment on "
                + "the same evaluation data.",
        };
        var tolerance = Shell.NumberOption(
            "--tolerance",
            "Allowed regression from the best run.",
            0.0,
            "0 or more",
            number => number >= 0
        );
        var command = new Command(
            "gate",
            "Fail when a trained config's last evaluation is not good enough.\n\nExample:\n  dotnet memopt gate "
                + "memopt.json --min-accuracy 0.8 --no-regression\n  memopt.json: error MEMOPT0013: accuracy 0.7125 is "
                + "below 0.8631 of run 2611251…"
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
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    var config = RunConfigFile.Read(
                        parsed.GetValue(file)!,
                        parsed.GetValue(set) ?? [],
                        checkFiles: false
                    );
                    using var store = ArtifactStores.Store(config);
                    var run = Finished(config, store);
                    var problems = Look(
                        config,
                        store,
                        run,
                        new(
                            parsed.GetValue(accuracy),
                            parsed.GetValue(loss),
                            parsed.GetValue(regression),
                            parsed.GetValue(tolerance)
                        )
                    );
                    if (problems.Count > 0)
                    {
                        throw new UserFault(
                            $"Run {run.Start.Id} does not pass.",
                            next: $"dotnet memopt runs show {run.Start.Id}"
                        )
                        {
                            Failed = true,
                            Problems =
                            [
                                .. problems.Select(problem => new Problem(
                                    "",
                                    problem.Text,
                                    config.File,
                                    Code: problem.Code
                                )),
                            ],
                        };
                    }
                    if (parsed.GetValue(json))
                        Shell.Print(
                            new
                            {
                                runId = run.Start.Id,
                                passed = true,
                                eval = run.Eval,
                            }
                        );
                    else
                        Console.Out.WriteLine(
                            $"run {run.Start.Id} passes: "
                                + $"{string.Join(", ", run.Eval.Select(value => $"{value.Key} {Text(value.Value)}"))}"
                        );
                    return 0;
                }
            )
        );
        return command;
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

    private static List<(string Code, string Text)> Look(
        ProjectConfig config,
        LiteRunStore store,
        Run run,
        Bounds bounds
    )
    {
        if (run.Eval.Count == 0)
            throw new UserFault(
                $"Run {run.Start.Id} has no evaluation to go by.",
                next: "set data.eval or data.evalShare, and train again"
            );
        var problems = new List<(string, string)>();
        double? accuracy = run.Eval.TryGetValue("accuracy", out var share) ? share : null;
        var loss = run.Eval["loss"];
        if (bounds.MinAccuracy is { } least && !(accuracy >= least))
            problems.Add(("MEMOPT0011", $"accuracy {Text(accuracy ?? double.NaN)} is below {Text(least)}"));
        if (bounds.MaxEvalLoss is { } most && !(loss <= most))
            problems.Add(("MEMOPT0012", $"evaluation loss {Text(loss)} is above {Text(most)}"));
        if (!bounds.NoRegression)
            return problems;
        var (metric, order) = accuracy is null ? ("eval_loss", "") : ("eval_accuracy", " desc");
        if (Best("=") is not { } best)
        {
            if (Best("!=") is { } other)
                Console.Error.WriteLine(
                    $"Nothing to compare with: run {other.Start.Id}, the best finished run of this experiment, "
                        + "was judged on other evaluation data."
                );
            return problems;
        }
        if (accuracy is { } right && !(right >= best.Eval["accuracy"] - bounds.Tolerance))
            problems.Add(
                ("MEMOPT0013", $"accuracy {Text(right)} is below {Text(best.Eval["accuracy"])} of run {best.Start.Id}")
            );
        else if (accuracy is null && !(loss <= best.Eval["loss"] + bounds.Tolerance))
            problems.Add(
                (
                    "MEMOPT0013",
                    $"evaluation loss {Text(loss)} is above {Text(best.Eval["loss"])} of run {best.Start.Id}"
                )
            );
        return problems;

        // The best finished run on the same evaluation data, or on other data.
        Run? Best(string same) =>
            store
                .Find(
                    new RunQuery
                    {
                        Filter =
                            $"experiment = '{config.Settings.Tracking.Experiment.Replace("'", "''")}' and status = "
                            + $"'FINISHED' and run_id != '{run.Start.Id}' and metrics.{metric} is not null"
                            + $" and hashes.`data.eval` {same} '{run.Start.Hashes.GetValueOrDefault("data.eval")}' "
                            + $"order by metrics.{metric}{order}",
                        Limit = 1,
                    }
                )
                .Runs
                is [var first]
                ? first
                : null;
    }

    private static string Text(double value) => value.ToString("0.####", CultureInfo.InvariantCulture);
}
