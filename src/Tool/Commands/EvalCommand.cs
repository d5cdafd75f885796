using System.CommandLine;
using Memopt.Core;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Sources;

namespace Memopt.Tool.Commands;

/// <summary><c>eval</c>: loss, perplexity and exact-match accuracy over a data file.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var data = new Option<string?>("--data")
        {
            Description =
                "File, folder, glob or hf:org/name, as data.eval; with --config its own evaluation data when left out.",
        };
        var length = Shell.NumberOption<int>(
            "--max-length",
            $"Longest row, tokens; that of the config, else {new DataConfig().MaxLength}.",
            "1 or more",
            number => number > 0
        );
        var batch = Shell.NumberOption<int>(
            "--batch",
            "Rows at once; as many as the config's training, else 8.",
            "1 or more",
            number => number > 0
        );
        var json = Shell.JsonOption();
        var command = new Command(
            "eval",
            "Measure loss, perplexity and exact-match accuracy of greedy answers.\n\nExample:\n  dotnet memopt "
                + "eval --model embedded:nano --adapter .memopt/memopt/adapter --data data/eval.jsonl\n  dotnet memopt "
                + "eval --config memopt.json"
        )
        {
            data,
            length,
            batch,
            json,
        };
        model.AddTo(command);
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var (config, role) = Data(
                                model.Trained(parsed),
                                parsed.GetValue(data),
                                parsed.GetValue(length)
                            );
                            var folder = model.Folder(parsed, stop);
                            var spec = ModelSpec.Read(folder);
                            var rows = Dataset.Load(
                                PullCommand.FetchData(config, parsed.GetValue(model.Offline), stop),
                                new ChatEncoder(folder, spec.EndOfTurn, stop: stop),
                                role,
                                stop: stop
                            )!;
                            var (loaded, _, _) = model.Load(parsed);
                            using (loaded)
                            {
                                var watcher = new ConsoleObserver();
                                var atOnce = parsed.GetValue(batch) ?? model.MicroBatch(parsed) ?? 8;
                                var score = Evaluation.Run(
                                    loaded,
                                    rows.Rows,
                                    atOnce,
                                    new Progress(done => watcher.Progress("evaluation", done, rows.Rows.Count)),
                                    stop
                                );
                                if (parsed.GetValue(json))
                                    Shell.Print(score);
                                else
                                    Console.Out.WriteLine(
                                        $"loss {score.Loss:F4}  perplexity {score.Perplexity:F3}  accuracy "
                                            + $"{score.Accuracy:P1} of {score.Answers:N0} answers  {score.Tokens:N0} "
                                            + "tokens"
                                    );
                            }
                            return 0;
                        }
                    )
                )
        );
        return command;
    }

    /// <summary>A config that names the rows, and as what. What a trained config says of rows holds for others
    /// too.</summary>
    private static (ProjectConfig Config, DataRole Role) Data(ProjectConfig? trained, string? source, int? length)
    {
        var data = trained?.Settings.Data ?? new();
        if (length is { } longest)
            data = data with { MaxLength = longest };
        if (source is not null)
            return (
                RunConfigFile.Default([]) with
                {
                    Settings = new()
                    {
                        Data = data with { Train = DataSources.Of(source), Eval = null, EvalShare = 0 },
                    },
                },
                DataRole.Train
            );
        if (trained is null || (data.Eval is null && data.EvalShare == 0))
            throw new UserFault(
                trained is null ? "eval needs --data or --config." : $"{trained.File} names no evaluation data.",
                next: "dotnet memopt eval --data eval.jsonl   (a file, folder, glob or hf:org/name)"
            );
        return (trained with { Settings = trained.Settings with { Data = data } }, DataRole.Eval);
    }

    private sealed class Progress(Action<int> report) : IProgress<int>
    {
        public void Report(int value) => report(value);
    }
}
