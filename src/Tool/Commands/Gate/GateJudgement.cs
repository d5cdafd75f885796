using System.Globalization;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;

namespace Memopt.Tool.Commands;

/// <summary>What a run must reach to pass a gate.</summary>
/// <param name="MinAccuracy">Least share of answers that are right, 0 to 1; null for any.</param>
/// <param name="MaxEvalLoss">Greatest loss on the evaluation data; null for any.</param>
/// <param name="NoRegression">Whether it is compared with the best finished run.</param>
/// <param name="Tolerance">How much worse than that run it may be.</param>
internal sealed record GateBounds(double? MinAccuracy, double? MaxEvalLoss, bool NoRegression, double Tolerance);

/// <summary>Judges a run's last evaluation by bounds, and by the best finished run of its experiment.</summary>
internal sealed class GateJudgement(ProjectConfig config, LiteRunStore store, Run run, GateBounds bounds)
{
    private readonly List<Problem> problems = [];

    /// <summary>The share of right answers; null when the evaluation counted none.</summary>
    private double? Accuracy => run.Eval.TryGetValue("accuracy", out var share) ? share : null;

    private double Loss => run.Eval["loss"];

    /// <summary>The bounds that the run does not reach, for the config's file.</summary>
    /// <exception cref="UserFault">The run has no evaluation.</exception>
    public IReadOnlyList<Problem> Problems()
    {
        if (run.Eval.Count == 0)
            throw new UserFault(
                $"Run {run.Start.Id} has no evaluation to go by.",
                next: "set data.eval or data.evalShare, and train again"
            );
        if (bounds.MinAccuracy is { } least && !(Accuracy >= least))
            Add("MEMOPT0011", $"accuracy {Text(Accuracy ?? double.NaN)} is below {Text(least)}");
        if (bounds.MaxEvalLoss is { } most && !(Loss <= most))
            Add("MEMOPT0012", $"evaluation loss {Text(Loss)} is above {Text(most)}");
        if (bounds.NoRegression)
            JudgeRegression();
        return problems;
    }

    public static string Text(double value) => value.ToString("0.####", CultureInfo.InvariantCulture);

    private void JudgeRegression()
    {
        if (Best(onSameData: true) is { } best)
            Compare(best);
        else if (Best(onSameData: false) is { } other)
            Console.Error.WriteLine(
                $"Nothing to compare with: run {other.Start.Id}, the best finished run of this experiment, "
                    + "was judged on other evaluation data."
            );
    }

    private void Compare(Run best)
    {
        if (Accuracy is { } right)
        {
            if (!(right >= best.Eval["accuracy"] - bounds.Tolerance))
                Add(
                    "MEMOPT0013",
                    $"accuracy {Text(right)} is below {Text(best.Eval["accuracy"])} of run {best.Start.Id}"
                );
        }
        else if (!(Loss <= best.Eval["loss"] + bounds.Tolerance))
            Add(
                "MEMOPT0013",
                $"evaluation loss {Text(Loss)} is above {Text(best.Eval["loss"])} of run {best.Start.Id}"
            );
    }

    /// <summary>The best finished run of the experiment, judged as this one is: by accuracy, or else by loss.</summary>
    /// <param name="onSameData">On the same evaluation data, or on other data.</param>
    private Run? Best(bool onSameData)
    {
        var (metric, order) = Accuracy is null ? ("eval_loss", "") : ("eval_accuracy", " desc");
        var found = store.Find(
            new RunQuery
            {
                Filter =
                    $"experiment = '{config.Settings.Tracking.Experiment.Replace("'", "''")}' and status = "
                    + $"'FINISHED' and run_id != '{run.Start.Id}' and metrics.{metric} is not null"
                    + $" and hashes.`data.eval` {(onSameData ? "=" : "!=")} "
                    + $"'{run.Start.Hashes.GetValueOrDefault("data.eval")}' order by metrics.{metric}{order}",
                Limit = 1,
            }
        );
        return found.Runs is [var first] ? first : null;
    }

    private void Add(string code, string text) => problems.Add(new("", text, config.File, Code: code));
}
