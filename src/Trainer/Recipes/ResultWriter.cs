using Memopt.Core;
using Memopt.Text;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Weights;

namespace Memopt.Trainer.Recipes;

/// <summary>What a trained run gives: its evaluation, the adapter or model folder, the artifact.</summary>
internal sealed class ResultWriter(
    FineTuneJob job,
    TrainingInputs inputs,
    RunRecorder recorder,
    LoadedRun run,
    Ladder ladder,
    NoGcScope noGc
)
{
    private readonly Dictionary<string, double> values = [];

    /// <summary>The evaluation's score; null without rows to evaluate on.</summary>
    public Score? Score { get; private set; }

    /// <summary>The evaluation's values by name, those of the job's own metrics too.</summary>
    public IReadOnlyDictionary<string, double> Values => values;

    /// <summary>Evaluates the model on the evaluation rows, if there are any.</summary>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public void Evaluate(CancellationToken stop)
    {
        if (inputs.Eval is not { } eval)
            return;
        var progress = new SynchronousProgress(done => job.Observer.Progress("evaluation", done, eval.Rows.Count));
        var score = ladder.Run(
            "the evaluation",
            run,
            () => Evaluation.Run(run.Model, eval.Rows, ladder.Plan.Rung.MicroBatch, job.World, progress, stop)
        );
        Score = score;
        values["loss"] = score.Loss;
        values["perplexity"] = score.Perplexity;
        values["accuracy"] = score.Accuracy;
        values["tokens"] = score.Tokens;
        if (job.Metrics.Count > 0)
            Judge(eval, stop);
        recorder.Append(new EvalRow(recorder.Step, values));
        job.Observer.Stage(
            StageNames.Evaluation,
            $"loss {score.Loss:F4}, perplexity {score.Perplexity:F3}, accuracy {score.Accuracy:P1} of "
                + $"{score.Answers} answers"
        );
    }

    /// <summary>Writes the adapter or the model, and stores it as an artifact: on the main rank.</summary>
    public void Save()
    {
        using (run.Optimizer.GatherValues())
        using (var whole = WholeModel.Gather(run.Model, job.World, job.Config.Settings.Adapter))
            ladder.Run("saving", run, () => job.World.RunOnMain(() => Write(whole ?? run.Model)));
        if (job.World.IsMain)
            Store();
    }

    private void Write(Decoder model)
    {
        using var staged = new StagedPath(job.AdapterFolder + ".staged");
        staged.CreateFolder();
        if (job.Config.Settings.Adapter.Kind == AdapterKind.None)
            MergedModel.Save(staged.Path, job.Model, model);
        else
            AdapterFiles.Save(staged.Path, model, job.Config.Settings);
        if (Directory.Exists(job.AdapterFolder))
            Directory.Delete(job.AdapterFolder, recursive: true);
        staged.MoveTo(job.AdapterFolder);
    }

    /// <summary>Computes the job's own metrics from the model's answers to the evaluation rows. The main rank computes
    /// the answers; all ranks do where each token needs all of them.</summary>
    private void Judge(Dataset eval, CancellationToken stop)
    {
        var text = new ChatEncoder(job.Model, inputs.Spec.EndOfTurn, stop: stop);
        var together = run.Model.Collectives.NeedAllRanks;
        var answers = together
            ? Answers()
            : ladder.Run("the answers to the evaluation rows", run, () => job.World.RunOnMain(Answers));

        List<Answer> Answers() =>
            [
                .. Evaluation
                    .Answers(run.Model, text, eval.Rows)
                    .Select(
                        (answer, at) =>
                        {
                            var asked = stop.IsCancellationRequested ? 1 : 0;
                            if (together ? job.World.Group.Agree([asked], ReduceOp.Max)[0] > 0 : asked > 0)
                                throw new OperationCanceledException(stop);
                            job.Observer.Progress("answers", at + 1, eval.Rows.Count);
                            return answer;
                        }
                    ),
            ];

        if (answers is null)
            return; // the main rank judges
        noGc.RunOutside(() =>
        {
            foreach (var (name, judge) in job.Metrics)
                values[name] = answers.Select(judge).DefaultIfEmpty(double.NaN).Average();
        });
    }

    /// <summary>Keeps the result among the artifacts; a fault there loses nothing that was trained.</summary>
    private void Store()
    {
        try
        {
            recorder.Link(job.Artifacts.Put(FineTuneJob.AdapterArtifact, job.AdapterFolder));
        }
        catch (TrackingException e)
        {
            job.Observer.Stage(StageNames.Tracking, $"{e.Message} The adapter is in {job.AdapterFolder} only.");
        }
        job.Observer.Stage(StageNames.Artifacts, job.AdapterFolder);
    }
}
