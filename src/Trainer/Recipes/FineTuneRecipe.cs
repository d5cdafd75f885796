using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>The recipe, and the table of contents of a training. Full, LoRA and QLoRA differ only in the passes over
/// the model that <see cref="LoadedRun"/> applies.</summary>
internal static class FineTuneRecipe
{
    /// <summary>Trains, or says that the same is trained already.</summary>
    public static Result Run(FineTuneJob job, CancellationToken stop)
    {
        job = job with { World = job.World.Arrange(job.Config.Settings.Distributed) };
        var result = Train(job, stop);
        job.World.Mesh.Dispose(); // not after a fault: it would wait for the other ranks
        return result;
    }

    private static Result Train(FineTuneJob job, CancellationToken stop)
    {
        using var scope = NewDisposeScope();
        var spec = ModelSpec.Read(job.Model); // Plan/: config.json
        job = job.WithAdapterOf(spec); // StartingAdapter: the adapter that is planned, recorded and trained
        var ranks = job.World; // Distributed/: the processes that train together, mostly one
        var inputs = ranks.MainFirst(() => TrainingInputs.Read(job, spec, stop)); // Data/: rows as tokens
        var resume = ranks.MainFirst(() => new ResumeState(job)); // Checkpoints/: what a previous start reached
        var plan = RunPlan.Make(job, inputs, resume); // Plan/: the fastest rung that fits
        var batches = new Batches(
            inputs.Rows.Rows,
            job.Config.Settings.Data,
            job.Config.Settings.Train,
            plan.MicroBatch
        );
        var hashes = ranks.FromMain(() => inputs.Hashes(job));
        if (ranks.MainFirst(() => resume.Done(hashes, batches.TotalSteps)) is { } done)
            return done;
        resume.Check(hashes);
        if (resume.Step > 0)
            job.Observer.Stage(
                StageNames.Resume,
                $"run {resume.RunId} goes on after step {resume.Step} of {batches.TotalSteps}"
            );
        using var recorder = RunRecorder.Begin(job, inputs, resume, plan.Start, hashes, batches.TotalSteps); // Tracking
        try
        {
            return new Training(job, inputs, resume, batches, hashes, recorder).Run(plan, stop);
        }
        catch (Exception e)
        {
            recorder.End(RunStatus.Failed, e.Message);
            throw;
        }
    }
}
