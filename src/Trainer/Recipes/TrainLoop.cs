using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;

namespace Memopt.Trainer.Recipes;

/// <summary>The steps of a run, with a checkpoint every so many.</summary>
internal sealed class TrainLoop
{
    // The steps after the first and after a checkpoint whose memory is sampled: a sample costs time.
    private const int SampledSteps = 3;

    private readonly FineTuneJob job;
    private readonly TrainingInputs inputs;
    private readonly ResumeState resume;
    private readonly Batches batches;
    private readonly IReadOnlyDictionary<string, string> hashes;
    private readonly RunRecorder recorder;
    private readonly LoadedRun run;
    private readonly Ladder ladder;
    private readonly NoGcScope noGc;
    private int saved;

    public TrainLoop(
        FineTuneJob job,
        TrainingInputs inputs,
        ResumeState resume,
        Batches batches,
        IReadOnlyDictionary<string, string> hashes,
        RunRecorder recorder,
        LoadedRun run,
        Ladder ladder,
        NoGcScope noGc
    )
    {
        (this.job, this.inputs, this.resume, this.batches) = (job, inputs, resume, batches);
        (this.hashes, this.recorder, this.run, this.ladder, this.noGc) = (hashes, recorder, run, ladder, noGc);
        var train = job.Config.Settings.Train;
        var schedule = new Schedule(train, batches.TotalSteps);
        TrainStep = new TrainStep(run.Model, run.Optimizer, schedule, train, run.Scaler, run.Meter);
        saved = recorder.Step;
        run.Released = Released;
    }

    public TrainStep TrainStep { get; }

    /// <summary>Trains until all steps are made or a stop is asked for; saves a checkpoint at the end.</summary>
    public void Run(CancellationToken stop)
    {
        var every = job.Config.Settings.Checkpoint.Every;
        for (; recorder.Step < batches.TotalSteps && !stop.IsCancellationRequested; recorder.Step++, noGc.Yield())
        {
            var step = recorder.Step;
            run.Meter.Sampling = step - saved < SampledSteps;
            var row = ladder.Run($"step {step + 1}", run, () => Step(step));
            recorder.Append(row);
            noGc.RunOutside(() => job.Observer.Step(row, batches.TotalSteps));
            if ((step + 1) % every == 0 && step + 1 < batches.TotalSteps)
                Save(step + 1);
        }
        if (saved != recorder.Step || resume.Checkpoint is null)
            Save(recorder.Step);
    }

    /// <summary>Takes the memory of the longest batch, of an evaluation and of a checkpoint once, before the first
    /// step: where memory runs out, the ladder steps down before anything is trained.</summary>
    public void Rehearse()
    {
        var config = job.Config.Settings;
        if (!config.Memory.Rehearse || (job.Backend.Kind != "cuda" && !run.Meter.Limited))
            return;
        job.Observer.Stage(
            StageNames.Rehearsal,
            $"the longest batch, {inputs.Longest:N0} tokens{(inputs.Eval is null ? "" : ", an evaluation")}, "
                + "a checkpoint's reading; --no-rehearsal skips it"
        );
        Attempt(
            "the rehearsal of the longest batch",
            () => TrainStep.Rehearse(Rehearsal.Longest(MicroBatch, inputs.Longest, config.Data.Packing))
        );
        if (inputs.Eval is { } eval)
            Attempt(
                "the rehearsal of the evaluation",
                () => Rehearsal.Evaluate(run.Model, Math.Min(MicroBatch, eval.Rows.Count), eval.Longest)
            );
        Attempt("the rehearsal of a checkpoint", () => Rehearsal.Save(run.State));
        noGc.Collect(); // an evaluation has a no-GC scope of its own, which ended this one
    }

    private int MicroBatch => ladder.Plan.Rung.MicroBatch;

    private StepRow Step(int step) => TrainStep.Run(step, batches.Step(step, MicroBatch), run.Meter.Sampling);

    private void Attempt(string what, Action action) =>
        ladder.Run(
            what,
            run,
            () =>
            {
                action();
                return true;
            }
        );

    private void Save(int step)
    {
        try
        {
            var (path, files) = ladder.Run(
                $"the checkpoint of step {step}",
                run,
                () => resume.Checkpoints.Save(step, recorder.RunId, job.Config.Json, hashes, run.State, MicroBatch)
            );
            if (job.Config.Settings.Tracking.Checkpoints == CheckpointUploads.Upload)
                job.Uploads?.Send(Upload.Folder(recorder.RunId, $"checkpoint-{step:D8}", path, files));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserFault(
                $"The checkpoint of step {step} cannot be written to {resume.Checkpoints.Folder}.",
                found: e.Message,
                next: "free some space and run again: it goes on from the checkpoint before",
                inner: e
            )
            {
                Failed = true,
            };
        }
        saved = step;
    }

    /// <summary>Drops what an interrupted action left; the next steps need other memory, so they are
    /// sampled.</summary>
    private void Released()
    {
        TrainStep.ZeroGrad();
        TrainStep.Remeasure();
        run.Meter.Sampling = true;
        noGc.Collect();
    }
}
