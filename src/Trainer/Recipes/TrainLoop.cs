using System.Diagnostics;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;
using static TorchSharp.torch;

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
    private readonly World world;
    private (int Step, int Size, StepBatch Batch)? collated;
    private double ownTokensPerSecond;
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
        world = job.World;
        var train = job.Config.Settings.Train;
        var schedule = new Schedule(train, batches.TotalSteps);
        TrainStep = new TrainStep(run.Model, run.Optimizer, schedule, train, run.Scaler, run.Meter, world);
        saved = recorder.Step;
        run.Released = Released;
    }

    public TrainStep TrainStep { get; }

    /// <summary>Trains until all steps are made or a stop is asked for; saves a checkpoint at the end.</summary>
    public void Run(CancellationToken stop)
    {
        var every = job.Config.Settings.Checkpoint.Every;
        for (; recorder.Step < batches.TotalSteps; recorder.Step++, noGc.Yield())
        {
            var step = recorder.Step;
            var ranks = Agree(step, stop);
            if (ranks.Stop)
                break;
            run.Meter.Sampling = step - saved < SampledSteps;
            var row = ladder.Run($"step {step + 1}", run, () => Step(step, ranks.Total));
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
            () =>
                TrainStep.Rehearse(
                    Rehearsal.Longest(MicroBatch, inputs.Longest, config.Data.Packing),
                    Math.Min(world.Mesh.Pipeline.Stages, batches.MicroBatches(MicroBatch, world.Mesh.Batches))
                )
        );
        if (inputs.Eval is { } eval)
            Attempt(
                "the rehearsal of the evaluation",
                () => Rehearsal.Evaluate(run.Model, Math.Min(MicroBatch, eval.Rows.Count), eval.Longest, world)
            );
        Attempt("the rehearsal of a checkpoint", () => Rehearsal.Save(run.State));
        noGc.Collect(); // an evaluation has a no-GC scope of its own, which ended this one
    }

    private int MicroBatch => ladder.Plan.Rung.MicroBatch;

    /// <summary>The one exchange of host values of a step: each rank gets the sums over all ranks before its first
    /// micro-batch, and all stop before the same step.</summary>
    private (StepTotal Total, bool Stop) Agree(int step, CancellationToken stop)
    {
        var parts = Batch(step).Parts;
        const int numbers = 5;
        var all = world.Group.AllGather([
            TrainStep.Terms(parts),
            parts.Sum(part => part.Tokens),
            stop.IsCancellationRequested ? 1 : 0,
            run.Meter.RunPeak,
            (long)ownTokensPerSecond,
        ]);
        // Of ranks that share a micro-batch the first counts.
        long Sum(int number) => all.Where((_, at) => at % numbers == number && world.Mesh.Counts(at / numbers)).Sum();
        bool Any(int number) => all.Where((_, at) => at % numbers == number).Any(value => value > 0);
        if (world.Size > 1 && step % RankMetrics.Every == 0)
            recorder.Append(RankMetrics.Of(step, [.. all.Chunk(numbers).Select(rank => (rank[3], rank[4]))]));
        return (new(Sum(0), Sum(1)), Any(2));
    }

    private StepRow Step(int step, StepTotal total)
    {
        var watch = Stopwatch.StartNew();
        var batch = Batch(step);
        var row = TrainStep.Run(step, batch, total, run.Meter.Sampling);
        ownTokensPerSecond =
            batch.Parts.Sum(part => part.Tokens) / watch.Elapsed.TotalSeconds / world.Mesh.Context.Size;
        return row;
    }

    /// <summary>This rank's micro-batches of a step; kept, since they are counted before they are computed.</summary>
    private StepBatch Batch(int step)
    {
        if (collated is not { } kept || kept.Step != step || kept.Size != MicroBatch)
            collated = kept = (step, MicroBatch, batches.Shard(step, world.Mesh.Batch, world.Mesh.Batches, MicroBatch));
        return kept.Batch;
    }

    private void Attempt(string what, Action action) => ladder.Run(what, run, () => world.RunOnAll(action));

    private void Save(int step)
    {
        try
        {
            EnsureReplicated(step);
            var whole = run.GatherState();
            var written = ladder.Run($"the checkpoint of step {step}", run, () => Write(step, whole));
            foreach (var (_, tensor) in whole ?? [])
                tensor.Dispose();
            if (written is { } saved && job.Config.Settings.Tracking.Checkpoints == CheckpointUploads.Upload)
                job.Uploads?.Send(Upload.Folder(recorder.RunId, $"checkpoint-{step:D8}", saved.Path, saved.Files));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            resume.Checkpoints.Discard(step);
            throw new UserFault(
                $"The checkpoint of step {step} cannot be written to {resume.Checkpoints.Folder}.",
                found: e.Message,
                next: "free some space and run again: it goes on from the checkpoint before"
                    + (
                        run.Optimizer.IsSharded || world.Mesh.Pipeline.Stages > 1
                            ? "; all ranks must see this folder"
                            : ""
                    ),
                inner: e
            )
            {
                Failed = true,
            };
        }
        saved = step;
    }

    /// <summary>Each rank that has a shard of the state writes it; the main rank completes the checkpoint and returns
    /// it.</summary>
    /// <param name="step">Steps made.</param>
    /// <param name="whole">The state of the whole weights, which the main rank alone writes; null where each writes its
    /// shard.</param>
    private (string Path, IReadOnlyList<ArtifactFile> Files)? Write(
        int step,
        IReadOnlyList<(string Name, Tensor Tensor)>? whole
    )
    {
        var (checkpoints, layout, mesh) = (resume.Checkpoints, run.Optimizer.Layout, world.Mesh);
        var ranks = whole is null ? layout.Ranks : 1;
        var (files, number) = (mesh.Pipeline.Stages * ranks, mesh.Pipeline.Stage * ranks + mesh.Data.Rank);
        var writes = mesh.Data.Rank < ranks && mesh.Tensor.Rank == 0;
        world.RunOnMain(() => checkpoints.Stage(step));
        var mine = world.RunOnAll(() =>
            writes ? checkpoints.WriteState(step, number, files, whole ?? run.State) : null
        );
        List<ArtifactFile> written = [.. (files == 1 ? [mine] : world.AllGather(mine)).OfType<ArtifactFile>()];
        var own = whole is null ? layout.Ranges : run.Optimizer.WholeLayout.Ranges;
        var units = mesh.Pipeline.Stages == 1 ? [own] : world.AllGather(own);
        return world.RunOnMain<(string, IReadOnlyList<ArtifactFile>)?>(() =>
            checkpoints.Complete(
                new(
                    step,
                    recorder.RunId,
                    Secrets.Redact(job.Config.Json),
                    hashes,
                    written.ToDictionary(file => file.Path, file => file.Hash),
                    MicroBatch,
                    Batches.Order,
                    ShardLayout.Order,
                    ranks,
                    [.. units.Where((_, rank) => rank % (world.Size / mesh.Pipeline.Stages) == 0)]
                ),
                written
            )
        );
    }

    /// <summary>Ranks that hold other weights than the main one would train another model each.</summary>
    private void EnsureReplicated(int step)
    {
        if (world.Size == 1)
            return;
        var all = world.Mesh.Data.AllGather([run.Optimizer.Checksum()]);
        if (Array.FindIndex(all, sum => sum != all[0]) is var other and >= 0)
            throw new UserFault(
                $"The ranks hold different weights after step {step}.",
                found: $"rank {other} of those that hold them differs from the first",
                next: "report this as a bug of memopt; the last checkpoint is whole"
            )
            {
                Failed = true,
            };
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
