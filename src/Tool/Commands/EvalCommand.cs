using System.CommandLine;
using Memopt.Core;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Sources;

namespace Memopt.Tool.Commands;

/// <summary><c>eval</c>: loss, perplexity and exact-match accuracy over a data file.</summary>
internal sealed class EvalCommand
{
    private readonly ModelOptions model = new();
    private readonly Option<string?> data = new("--data")
    {
        Description =
            "File, folder, glob or hf:org/name, as data.eval; with --config its own evaluation data when left out.",
    };
    private readonly Option<int?> length = Shell.NumberOption<int>(
        "--max-length",
        $"Longest row, tokens; that of the config, else {new DataConfig().MaxLength}.",
        "1 or more",
        number => number > 0
    );
    private readonly Option<int?> batch = Shell.NumberOption<int>(
        "--batch",
        "Rows at once; as many as the config's training, else 8.",
        "1 or more",
        number => number > 0
    );
    private readonly Option<ProgressFormat> progress = Shell.ProgressOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new EvalCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "eval",
            "Measure loss, perplexity and exact-match accuracy of greedy answers.\n\nExample:\n  dotnet memopt "
                + "eval --model embedded:nano --adapter .memopt/memopt/adapter --data data/eval.jsonl\n  dotnet memopt "
                + "eval --config memopt.json\n  "
                + "dotnet memopt eval --config memopt.json --progress json 2> progress.jsonl"
        )
        {
            data,
            length,
            batch,
            progress,
            json,
        };
        model.AddTo(command);
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var view = IRunView.For(parsed.GetValue(progress));
        model.ShowOn(view);
        var score = view.EndStopped(() => Measure(parsed, view, stop));
        if (parsed.GetValue(json))
            Shell.Print(score);
        else
            Console.Out.WriteLine(Line(score));
        view.Finished(
            new(StageNames.Finished, Line(score))
            {
                Loss = score.Loss,
                Accuracy = score.Answers == 0 ? null : score.Accuracy,
                Judged = Line(score),
            }
        );
        return 0;
    }

    private Score Measure(ParseResult parsed, IRunView view, CancellationToken stop)
    {
        var (config, role) = Data(parsed);
        var rows = Load(config, role, parsed, view, stop).Rows;
        var (loaded, _, _) = model.Load(parsed);
        using (loaded)
            return Evaluation.Run(
                loaded,
                rows,
                parsed.GetValue(batch) ?? model.MicroBatch(parsed) ?? 8,
                progress: new Progress(done => view.Progress(StageNames.Evaluation, done, rows.Count)),
                stop: stop
            );
    }

    /// <summary>A config that names the rows, and as what. What a trained config says of rows holds for others
    /// too.</summary>
    private (ProjectConfig Config, DataRole Role) Data(ParseResult parsed)
    {
        var trained = model.Trained(parsed);
        var settings = trained?.Settings.Data ?? new();
        if (parsed.GetValue(length) is { } longest)
            settings = settings with { MaxLength = longest };
        if (parsed.GetValue(data) is { } source)
        {
            var train = settings with { Train = DataSources.Of(source), Eval = null, EvalShare = 0 };
            return (RunConfigFile.Default([]) with { Settings = new() { Data = train } }, DataRole.Train);
        }
        if (trained is null || (settings.Eval is null && settings.EvalShare == 0))
            throw new UserFault(
                trained is null ? "eval needs --data or --config." : $"{trained.File} names no evaluation data.",
                next: "dotnet memopt eval --data eval.jsonl   (a file, folder, glob or hf:org/name)"
            );
        return (trained with { Settings = trained.Settings with { Data = settings } }, DataRole.Eval);
    }

    private Dataset Load(ProjectConfig config, DataRole role, ParseResult parsed, IRunView view, CancellationToken stop)
    {
        var folder = model.Folder(parsed, stop);
        var spec = ModelSpec.Read(folder);
        return Dataset.Load(
            PullCommand.FetchData(config, parsed.GetValue(model.Offline), view, stop),
            new ChatEncoder(folder, spec.EndOfTurn, stop: stop),
            role,
            stop: stop
        )!;
    }

    private static string Line(Score score) =>
        $"loss {score.Loss:F4}  perplexity {score.Perplexity:F3}  accuracy {score.Accuracy:P1} of "
        + $"{score.Answers:N0} answers  {score.Tokens:N0} tokens";

    private sealed class Progress(Action<int> report) : IProgress<int>
    {
        public void Report(int value) => report(value);
    }
}
