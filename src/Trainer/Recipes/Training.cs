using Memopt.Core;
using Memopt.Text;
using Memopt.Tracking;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>The part of a fine-tune that has a model on the device: loads and adapts it, makes the steps, judges it and
/// keeps what was learned.</summary>
internal sealed class Training(
    FineTuneJob job,
    TrainingInputs inputs,
    ResumeState resume,
    Batches batches,
    IReadOnlyDictionary<string, string> hashes,
    IRunWriter record
)
{
    private readonly RunConfig config = job.Config.Settings;
    private readonly bool cuda = job.Backend.Kind == "cuda";
    private readonly string staged = job.AdapterFolder + ".staged";
    private int step = resume.Step;

    /// <summary>Whether the model is loaded: from then on a step back is made in place when memory runs out, and before
    /// it by another call.</summary>
    public bool Ready { get; private set; }

    /// <param name="plans">What may be gone down to when memory runs out, the fastest first.</param>
    /// <param name="start">The plan of them to begin with.</param>
    /// <param name="stop">Ends it after the step, with a checkpoint.</param>
    public Result Run(IReadOnlyList<MemoryPlan> plans, MemoryPlan start, CancellationToken stop)
    {
        using var recording = job.Uploads?.Recording(resume.RunId, record, () => step);
        var used = cuda ? Cuda.UsedBytes : (Func<long>?)null;
        var empty = new Meter(used).Now();
        // On a GPU the meter reads what all programs have: there a budget is the plan's to keep, and the allocator's to
        // refuse.
        var limit =
            job.MemoryLimit ?? (!cuda && config.Memory.BudgetGiB is { } gib ? () => (long)(gib * (1L << 30)) : null);
        var meter = new Meter(used, limit is null ? null : () => empty + limit());
        meter.Sample();

        LayerStream Stream(bool spill) =>
            new(
                inputs.Spec.Layers,
                job.Backend.Device,
                spill || !cuda ? Path.Combine(job.Output, "streamed.weights") : null
            );
        // In a file from the beginning if the ladder may come to where the host is too small: what streams is not moved
        // again.
        var spill = plans.Any(plan => plan.Spills);
        using var stream = start.Rung.StreamLayers > 0 ? Stream(start.Spills) : null;
        var streamed = stream is null
            ? []
            : LayerStream.Chosen(inputs.Spec.Layers, start.Rung.StreamLayers).ToHashSet();
        using var model = FineTuneRecipe.LoadModel(
            job.Model,
            inputs.Spec,
            config,
            inputs.Type,
            job.Backend.Device,
            (done, total) => job.Observer.Progress("loading", done, total),
            layer =>
            {
                if (streamed.Contains(layer.Index))
                    stream!.Add(layer);
            }
        );
        if (cuda)
            Cuda.EmptyCache(model.Device);
        meter.Sample();
        var expanding = model.Linears().Select(slot => slot.Linear).OfType<Nf4Linear>().FirstOrDefault();
        expanding?.AllocateScratch();
        if (job.Config.StartingAdapter is { } from)
            AdapterFiles.Load(from, model, config.Adapter.Dropout);
        else if (config.Adapter.Kind != AdapterKind.None)
            AdapterPass.Attach(model, config.Adapter, config.Train.Seed);
        var sampling = false;
        var trained = AdapterPass.Trained(model, config.Adapter.Kind, config.Adapter.Biases);
        using var optimizer = new Optimizer(
            trained,
            config.Train,
            model.Device,
            inputs.Type,
            start.Rung.OffloadOptimizer
        );
        using var settings = new MemorySettings(
            model,
            optimizer.OffloadToHost,
            meter,
            () => sampling,
            stream,
            () => Stream(spill)
        );
        settings.Apply(start.Rung);
        using var scaler = inputs.Type == float16 ? new GradScaler() : null;
        IReadOnlyList<(string, Tensor)> State() =>
            scaler is null ? optimizer.State : [.. optimizer.State, ("loss_scale", scaler.State)];
        meter.Sample();
        if (resume.Checkpoint is { } checkpoint)
        {
            CheckpointFolder.Load(checkpoint, State());
            optimizer.SyncComputeCopy();
        }
        job.Observer.Stage(
            StageNames.Training,
            $"{optimizer.Count:N0} trained weights, {batches.TotalSteps:N0} steps of {config.Train.BatchSize} "
                + $"sequences on {job.Backend.Kind}"
        );

        Ready = true;
        var schedule = new Schedule(config.Train, batches.TotalSteps);
        var trainStep = new TrainStep(model, optimizer, schedule, config.Train, scaler, meter);
        var (begun, saved) = (step, step);
        using var noGc = new NoGcScope();
        var ladder = new Ladder(
            plans,
            start,
            settings,
            AvailableBytes,
            Release,
            text =>
            {
                job.Observer.Stage(StageNames.Memory, text);
                record.Append(new RunEvent(job.Clock.GetUtcNow(), step, StageNames.Memory, text));
            }
        );
        if (config.Memory.Rehearse && (cuda || meter.Limited))
            Rehearse();
        for (; step < batches.TotalSteps && !stop.IsCancellationRequested; step++, noGc.Yield())
        {
            sampling = step - saved < 3;
            var row = ladder.Run(
                $"step {step + 1}",
                () =>
                {
                    batches.MicroBatch = ladder.Plan.Rung.MicroBatch;
                    return trainStep.Run(step, batches.Step(step), sampling);
                }
            );
            record.Append([row]);
            noGc.RunOutside(() => job.Observer.Step(row, batches.TotalSteps));
            if ((step + 1) % config.Checkpoint.Every == 0 && step + 1 < batches.TotalSteps)
                Save(step + 1);
        }
        if (saved != step || resume.Checkpoint is null)
            Save(step);
        // Where nothing was trained the record keeps what was measured when it was.
        var ledger = step == begun ? [] : Measured();
        if (ledger.Count > 0)
            job.Observer.Ledger(ledger, measured: true);
        if (step < batches.TotalSteps)
            return Stopped($"after step {step} of {batches.TotalSteps}");

        Score? score = null;
        IReadOnlyDictionary<string, double> values = new Dictionary<string, double>();
        try
        {
            if (inputs.Eval is { } eval)
                (score, values) = Evaluate(model, eval, ladder, noGc, stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            return Stopped("in the evaluation, after all steps");
        }
        ladder.Run(
            "saving",
            () =>
            {
                Directory.CreateDirectory(Emptied(staged));
                if (config.Adapter.Kind == AdapterKind.None)
                    MergedModel.Save(staged, job.Model, model);
                else
                    AdapterFiles.Save(staged, model, config);
                return true;
            }
        );
        Directory.Move(staged, Emptied(job.AdapterFolder));
        Store();
        record.End(new Outcome(RunStatus.Finished) { Ended = job.Clock.GetUtcNow(), Ledger = ledger });
        return new(resume.RunId, RunStatus.Finished, step, job.AdapterFolder, score) { Eval = values };

        Result Stopped(string where)
        {
            record.End(
                new Outcome(RunStatus.Stopped, "stopped on request") { Ended = job.Clock.GetUtcNow(), Ledger = ledger }
            );
            job.Observer.Stage(StageNames.Stopped, $"{where}; run again to go on");
            return new(resume.RunId, RunStatus.Stopped, step, null, null);
        }

        void Save(int at)
        {
            try
            {
                var (path, files) = ladder.Run(
                    $"the checkpoint of step {at}",
                    () =>
                        resume.Checkpoints.Save(
                            at,
                            resume.RunId,
                            job.Config.Json,
                            hashes,
                            State(),
                            ladder.Plan.Rung.MicroBatch
                        )
                );
                if (config.Tracking.Checkpoints == CheckpointUploads.Upload)
                    job.Uploads?.Send(Upload.Folder(resume.RunId, $"checkpoint-{at:D8}", path, files));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault(
                    $"The checkpoint of step {at} cannot be written to {resume.Checkpoints.Folder}.",
                    found: e.Message,
                    next: "free some space and run again: it goes on from the checkpoint before",
                    inner: e
                )
                {
                    Failed = true,
                };
            }
            saved = at;
        }

        void Release()
        {
            trainStep.ZeroGrad();
            trainStep.Remeasure();
            sampling = true;
            noGc.Collect();
            if (cuda)
                Cuda.EmptyCache(model.Device);
        }

        IReadOnlyList<LedgerRow> Measured()
        {
            var rows = new MeasuredRows();
            rows.Add(MemoryPlan.Weights, model.FrozenBytes);
            rows.Add(MemoryPlan.Scratch, expanding?.ScratchBytes ?? 0);
            optimizer.Measure(rows, config.Adapter.Kind);
            settings.Measure(rows);
            if (cuda)
            {
                rows.Add(MemoryPlan.Staging, Staging.Bytes);
                Cuda.EmptyCache(model.Device);
                rows.Add(MemoryPlan.Fragmentation, Math.Max(0, meter.Now() - empty - rows.PersistentBytes));
            }
            rows.Add(MemoryPlan.Activations, trainStep.Activations);
            rows.Add(MemoryPlan.WorkingSet, trainStep.WorkingSet);
            return rows.Fill(ladder.Plan.Rows);
        }

        // What is free, and what the run has already; within the limits that were set.
        long? AvailableBytes(long persistent)
        {
            var free = (cuda ? Cuda.FreeBytes() : HostMemory.FreeBytes()) + persistent;
            var most = limit?.Invoke() ?? (config.Memory.BudgetGiB is { } gib ? (long)(gib * (1L << 30)) : null);
            return most is { } bytes ? Math.Min(bytes, free ?? long.MaxValue) : free;
        }

        void Rehearse()
        {
            job.Observer.Stage(
                StageNames.Rehearsal,
                $"the longest batch, {inputs.Longest:N0} tokens{(inputs.Eval is null ? "" : ", an evaluation")}, "
                    + "a checkpoint's reading; --no-rehearsal skips it"
            );
            ladder.Run(
                "the rehearsal of the longest batch",
                () =>
                {
                    trainStep.Rehearse(
                        Rehearsal.Longest(ladder.Plan.Rung.MicroBatch, inputs.Longest, config.Data.Packing)
                    );
                    return true;
                }
            );
            if (inputs.Eval is { } eval)
            {
                ladder.Run(
                    "the rehearsal of the evaluation",
                    () =>
                    {
                        Rehearsal.Evaluate(model, Math.Min(ladder.Plan.Rung.MicroBatch, eval.Rows.Count), eval.Longest);
                        return true;
                    }
                );
            }
            ladder.Run(
                "the rehearsal of a checkpoint",
                () =>
                {
                    Rehearsal.Save(State());
                    return true;
                }
            );
            noGc.Collect(); // an evaluation has a no-GC scope of its own, which ended this one
        }
    }

    private (Score Score, IReadOnlyDictionary<string, double> Values) Evaluate(
        Decoder model,
        Dataset eval,
        Ladder ladder,
        NoGcScope noGc,
        CancellationToken stop
    )
    {
        var score = ladder.Run(
            "the evaluation",
            () =>
                Evaluation.Run(
                    model,
                    eval.Rows,
                    ladder.Plan.Rung.MicroBatch,
                    new SynchronousProgress(done => job.Observer.Progress("evaluation", done, eval.Rows.Count)),
                    stop
                )
        );
        var values = new Dictionary<string, double>
        {
            ["loss"] = score.Loss,
            ["perplexity"] = score.Perplexity,
            ["accuracy"] = score.Accuracy,
            ["tokens"] = score.Tokens,
        };
        if (job.Metrics.Count > 0)
        {
            var text = new ChatEncoder(job.Model, FineTuneRecipe.EndOfTurn(inputs.Spec), stop: stop);
            var answers = ladder.Run(
                "the answers to the evaluation rows",
                () =>
                    Evaluation
                        .Answers(model, text, eval.Rows)
                        .Select(
                            (answer, at) =>
                            {
                                stop.ThrowIfCancellationRequested();
                                job.Observer.Progress("answers", at + 1, eval.Rows.Count);
                                return answer;
                            }
                        )
                        .ToList()
            );
            noGc.RunOutside(() =>
            {
                foreach (var (name, judge) in job.Metrics)
                    values[name] = answers.Select(judge).DefaultIfEmpty(double.NaN).Average();
            });
        }
        record.Append(new EvalRow(step, values));
        job.Observer.Stage(
            StageNames.Evaluation,
            $"loss {score.Loss:F4}, perplexity {score.Perplexity:F3}, accuracy {score.Accuracy:P1} of "
                + $"{score.Answers} answers"
        );
        return (score, values);
    }

    /// <summary>Keeps the result among the artifacts; a fault there loses nothing that was trained.</summary>
    private void Store()
    {
        try
        {
            var link = job.Artifacts.Put("adapter", job.AdapterFolder);
            record.Link(link);
            job.Uploads?.Send(new(resume.RunId, link));
        }
        catch (TrackingException e)
        {
            job.Observer.Stage(StageNames.Tracking, $"{e.Message} The adapter is in {job.AdapterFolder} only.");
        }
        job.Observer.Stage(StageNames.Artifacts, job.AdapterFolder);
    }

    private static string Emptied(string folder)
    {
        if (Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
        return folder;
    }
}
