using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;

namespace Memopt.Trainer.Recipes;

/// <summary>The part of a fine-tune that has a model on the device: loads it, makes the steps, evaluates the model and
/// writes the result.</summary>
internal sealed class Training(
    FineTuneJob job,
    TrainingInputs inputs,
    ResumeState resume,
    Batches batches,
    IReadOnlyDictionary<string, string> hashes,
    RunRecorder recorder
)
{
    /// <param name="plan">The memory plans.</param>
    /// <param name="stop">Ends the training after the step, with a checkpoint.</param>
    public Result Run(RunPlan plan, CancellationToken stop)
    {
        var ladder = new Ladder(plan.Ladder, plan.Start, SteppedDown);
        using var run = ladder.Load(
            rung => job.World.RunOnAll(() => LoadedRun.Load(job, inputs, rung, ladder.Spills, resume.Checkpoint)),
            ReleaseFailedLoad
        );
        if (run.Optimizer.IsSharded && resume.Checkpoint is not null)
            run.Optimizer.SyncComputeCopy();
        job.Observer.Stage(
            StageNames.Training,
            $"{run.Optimizer.TrainedWeights():N0} trained weights, {batches.TotalSteps:N0} steps of "
                + $"{job.Config.Settings.Train.BatchSize} sequences on {job.Backend.Kind}"
                + (job.World.Size == 1 ? "" : $", {job.World.Size} ranks")
                + StagesText(ladder.Plan.Rung.MicroBatch)
        );
        using var noGc = new NoGcScope();
        var loop = new TrainLoop(job, inputs, resume, batches, hashes, recorder, run, ladder, noGc);
        var begun = recorder.Step;
        loop.Rehearse();
        loop.Run(stop);
        // Where nothing was trained the record keeps the ledger of the start that trained it.
        var ledger = recorder.Step == begun ? [] : run.Measure(ladder.Plan, loop.TrainStep);
        if (ledger.Count > 0)
            job.Observer.Ledger(ledger, measured: true);
        if (recorder.Step < batches.TotalSteps)
            return Stopped($"after step {recorder.Step} of {batches.TotalSteps}", ledger);
        var result = new ResultWriter(job, inputs, recorder, run, ladder, noGc);
        try
        {
            result.Evaluate(stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            return Stopped("in the evaluation, after all steps", ledger);
        }
        result.Save();
        recorder.End(RunStatus.Finished, ledger: ledger);
        return new(recorder.RunId, RunStatus.Finished, recorder.Step, job.AdapterFolder, result.Score)
        {
            Eval = result.Values,
        };
    }

    /// <summary>The stages of the pipeline, and a warning where they mostly wait for each other.</summary>
    private string StagesText(int microBatch)
    {
        var mesh = job.World.Mesh;
        if (mesh.Pipeline.Stages == 1)
            return "";
        var parts = batches.MicroBatches(microBatch, mesh.Batches);
        return $", {mesh.Pipeline.Stages} pipeline stages"
            + (
                parts < mesh.Pipeline.Stages
                    ? $"; warning: fewer micro-batches a step ({parts}) than stages, which wait most of the time: "
                        + "raise train.batchSize, or lower train.microBatch"
                    : ""
            );
    }

    private Result Stopped(string where, IReadOnlyList<LedgerRow> ledger)
    {
        recorder.End(RunStatus.Stopped, "stopped on request", ledger);
        job.Observer.Stage(StageNames.Stopped, $"{where}; run again to go on");
        return new(recorder.RunId, RunStatus.Stopped, recorder.Step, null, null);
    }

    private void SteppedDown(string text)
    {
        job.Observer.Stage(StageNames.Memory, text);
        recorder.Event(StageNames.Memory, text);
    }

    private void ReleaseFailedLoad()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        if (job.Backend.Kind == "cuda")
            Cuda.EmptyCache(job.Backend.Device);
    }
}
