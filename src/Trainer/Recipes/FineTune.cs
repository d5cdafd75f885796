using System.Diagnostics;
using System.Security.Cryptography;
using Memopt.Tracking;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>Everything a fine-tune is given; nothing else is looked up on the way.</summary>
public sealed record Job
{
    public required LoadedConfig Config { get; init; }
    /// <summary>Folder of the model, located already.</summary>
    public required string Model { get; init; }
    /// <summary>Where checkpoints and the adapter go.</summary>
    public required string Output { get; init; }
    public required Backend Backend { get; init; }
    public required IRunStore Store { get; init; }
    public required IArtifactStore Artifacts { get; init; }
    public required IWatcher Watcher { get; init; }
    /// <summary>Id of a run that begins here; a resumed one keeps its own.</summary>
    public required string RunId { get; init; }
    public bool FromStart { get; init; }
    /// <summary>The run that this one is a part of, or null.</summary>
    public RunParent? Parent { get; init; }
    /// <summary>Facts of the surroundings for the record: versions, commit.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();
    public string? GitCommit { get; init; }
    public bool GitDirty { get; init; }
    public TimeProvider Clock { get; init; } = TimeProvider.System;
    /// <summary>Bytes of tensors that may be there at a moment, read at every layer; null has no limit beyond the machine's and the config's.</summary>
    public Func<long?>? MemoryLimit { get; init; }
}

/// <summary>Told what passes; prints or stays silent.</summary>
public interface IWatcher
{
    /// <summary>A stage begins or has a result.</summary>
    void Stage(string name, string text);

    /// <summary>Within a long stage: done of total.</summary>
    void Progress(string name, long done, long total);

    /// <summary>The memory ledger, before training and after it (then with measured values).</summary>
    void Ledger(IReadOnlyList<LedgerRow> rows, bool measured);

    void Step(StepRow row, int total);
}

/// <summary>How a fine-tune ended.</summary>
/// <param name="RunId">In the store.</param>
/// <param name="Status">Finished, or Stopped with a checkpoint to go on from.</param>
/// <param name="Steps">Optimizer steps made in all.</param>
/// <param name="Adapter">The folder that holds the result, when finished.</param>
/// <param name="Score">The last evaluation, when there is evaluation data.</param>
/// <param name="UpToDate">Whether nothing had to be done.</param>
public sealed record Result(string RunId, RunStatus Status, int Steps, string? Adapter, Score? Score, bool UpToDate = false);

/// <summary>The recipe: config → plan → data → model → adapter → steps → adapter folder. Full, LoRA and QLoRA differ in passes over the model only.</summary>
public static class FineTune
{
    public static Result Run(Job job, CancellationToken stop)
    {
        using var scope = NewDisposeScope();
        var config = job.Config.Config;
        var spec = ModelSpec.Read(job.Model);
        job.Watcher.Stage("model", $"{spec.ModelType}, {spec.Parameters:N0} parameters, {job.Model}");

        var rows = Rows(job, spec, DataRole.Train, stop)!;
        var eval = Rows(job, spec, DataRole.Eval, stop);
        var longest = config.Data.Packing ? config.Data.MaxLength : rows.Longest;
        longest = Batches.Padded(longest);
        var type = ComputeType(config.Model.Dtype, job.Backend);
        var checkpoints = new CheckpointFolder(Path.Combine(job.Output, "checkpoints"), config.Checkpoint.Keep);
        if (job.FromStart)
            checkpoints.Clear();
        var found = checkpoints.Latest(text => job.Watcher.Stage("resume", text));

        // What another start would choose from the memory that is free now, a resumed run has chosen already.
        var finished = found is { } last && job.Store.Get(last.Manifest.RunId)?.Status == RunStatus.Finished;
        var device = PlanDevice(job.Backend, type, config.Memory);
        var ladder = MemoryPlan.Ladder(config, spec, device, longest, eval is null ? 0 : Batches.Padded(eval.Longest));
        var plan = ladder.FirstOrDefault(plan => plan.Fits && (finished || found?.Manifest.MicroBatch is not { } micro || plan.Rung.MicroBatch == micro))
            ?? ladder.FirstOrDefault(plan => plan.Fits) ?? ladder.MinBy(plan => plan.PeakBytes)!;
        job.Watcher.Ledger(plan.Rows, measured: false);
        if (!plan.Fits)
        {
            throw new UserFault("This does not fit into memory.",
                found: $"{plan.PeakBytes / 1073741824.0:F2} GiB needed with the least that the settings allow ({plan.Rung}), {MemoryPlan.Budget(config, device) / 1073741824.0:F2} GiB free"
                    + (device.HostBytes is { } host && plan.HostBytes > host ? $"; {plan.HostBytes / 1073741824.0:F2} GiB needed on the host, {host / 1073741824.0:F2} GiB free" : ""),
                next: "use adapter.kind = \"qlora\", a smaller train.microBatch or data.maxLength, or raise memory.budgetGiB");
        }
        job.Watcher.Stage("memory", $"{plan.PeakBytes / 1048576.0:N0} MiB; {plan.Rung}");

        var batches = new Batches(rows.Rows, config.Data, config.Train, plan.Rung.MicroBatch);
        var hashes = new Dictionary<string, string> { ["config"] = job.Config.Hash, ["data.train"] = rows.Hash, ["model"] = ModelHash(job.Model) };
        if (eval is not null)
            hashes["data.eval"] = eval.Hash;
        if (config.Adapter.From is { } from)
            hashes["adapter.from"] = ModelHash(AdapterFiles.Check(job.Config.Full(from)), "adapter_model.safetensors");

        var adapterFolder = Path.Combine(job.Output, "adapter");
        if (found is { } old && finished)
        {
            // A finished run is not resumed: the same inputs need nothing, others are a new run.
            if (old.Manifest.Step >= batches.TotalSteps && Refusals(old.Manifest, config, hashes).Count == 0 && Directory.Exists(adapterFolder))
            {
                job.Watcher.Stage("done", $"run {old.Manifest.RunId} has trained exactly this already; --from-start trains it again");
                return new(old.Manifest.RunId, RunStatus.Finished, old.Manifest.Step, adapterFolder, null, UpToDate: true);
            }
            checkpoints.Clear();
            found = null;
        }
        if (found is { } saved && Refusals(saved.Manifest, config, hashes) is { Count: > 0 } refused)
        {
            throw new UserFault($"The run cannot go on from step {saved.Manifest.Step}: settings differ from its checkpoint.",
                found: string.Join("; ", refused.Select(r => $"{r.Key} was {r.Old}, is {r.New}")), next: "set them back, or run again with --from-start")
            { Problems = [.. refused.Select(r => new Problem(r.Key, $"was {r.Old} in the checkpoint, is {r.New}", Code: "MEMOPT0008"))] };
        }
        var (step, runId) = found is { } manifest ? (manifest.Manifest.Step, manifest.Manifest.RunId) : (0, job.RunId);
        if (step > 0)
            job.Watcher.Stage("resume", $"run {runId} goes on after step {step} of {batches.TotalSteps}");

        using var record = job.Store.BeginSteady(new RunStart
        {
            Id = runId,
            Experiment = config.Tracking.Experiment,
            Started = job.Clock.GetUtcNow(),
            Config = job.Config.Json,
            Hashes = hashes,
            Environment = new Dictionary<string, string>(job.Environment.Concat(rows.Facts("data.train")).Concat(eval?.Facts("data.eval") ?? [])),
            GitCommit = job.GitCommit,
            GitDirty = job.GitDirty,
            Tags = config.Tracking.Tags,
            Ledger = plan.Rows,
            TotalSteps = batches.TotalSteps,
            Parent = job.Parent,
        }, step, fault => job.Watcher.Stage("tracking", fault), Path.Combine(job.Output, "unrecorded"))
            .WithTensorBoard(config.Tracking.Tensorboard is { } board ? job.Config.Full(board) : null, runId, step, fault => job.Watcher.Stage("tracking", fault), job.Clock);
        if (step > 0)
            record.Append(new RunEvent(job.Clock.GetUtcNow(), step, "resume", $"goes on after step {step} of {batches.TotalSteps}"));
        try
        {
            while (true)
            {
                var (ready, why) = (false, "");
                try
                {
                    return Train(job, spec, ladder, plan, longest, type, batches, eval, checkpoints, adapterFolder, found?.Path, step, runId, hashes, record, () => ready = true, stop);
                }
                catch (Exception e) when (OutOfMemory.Is(e) && !ready)
                {
                    why = e.Message;
                }
                plan = Smaller(why);
            }
        }
        catch (Exception e)
        {
            record.End(new Outcome(RunStatus.Failed, e.Message) { Ended = job.Clock.GetUtcNow() });
            throw;
        }

        // The model could not even be loaded: from the beginning, on the fastest rung of which less rests on the device.
        MemoryPlan Smaller(string why)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            if (job.Backend.Kind == "cuda")
                Cuda.ReleaseCached(job.Backend.Device);
            var next = ladder.FirstOrDefault(other => other.HostFits && other.Resting < plan.Resting && other.PeakBytes < plan.PeakBytes) ?? throw new UserFault("Memory ran out while the model was made ready.",
                found: $"{why}; the plan was {plan.Rung}, {plan.PeakBytes / 1048576.0:N0} MiB", next: "free memory, or use adapter.kind = \"qlora\"");
            var text = $"memory ran out while the model was made ready: {plan.Rung} → {next.Rung}";
            job.Watcher.Stage("memory", text);
            record.Append(new RunEvent(job.Clock.GetUtcNow(), step, "memory", text));
            return next;
        }
    }

    private static Result Train(Job job, ModelSpec spec, IReadOnlyList<MemoryPlan> rungs, MemoryPlan start, int longest, ScalarType type, Batches batches, Dataset? eval, CheckpointFolder checkpoints,
        string adapterFolder, string? resume, int step, string runId, IReadOnlyDictionary<string, string> hashes, IRunWriter record, Action ready, CancellationToken stop)
    {
        var (config, cuda) = (job.Config.Config, job.Backend.Kind == "cuda");
        var measured = new Dictionary<string, long>();
        var used = cuda ? Cuda.UsedBytes : (Func<long>?)null;
        var empty = new Meter(used).Now();
        // On a GPU the meter reads what all programs have: there a budget is the plan's to keep, and the allocator's to refuse.
        var limit = job.MemoryLimit ?? (!cuda && config.Memory.BudgetGiB is { } gib ? () => (long)(gib * (1L << 30)) : null);
        var meter = new Meter(used, limit is null ? null : () => empty + limit());
        var before = meter.Sample();
        long Since(string name)
        {
            var now = meter.Sample();
            measured[name] = Math.Max(0, now - before);
            return before = now;
        }

        LayerStream Stream(bool spill) => new(spec.Layers, job.Backend.Device, spill || !cuda ? Path.Combine(job.Output, "streamed.weights") : null);
        // In a file from the beginning if the ladder may come to where the host is too small: what streams is not moved again.
        var spill = rungs.Any(plan => plan.Spills);
        using var stream = start.Rung.StreamLayers > 0 ? Stream(start.Spills) : null;
        var streamed = stream is null ? [] : LayerStream.Chosen(spec.Layers, start.Rung.StreamLayers).ToHashSet();
        using var model = LoadModel(job.Model, spec, config, type, job.Backend.Device, (done, total) => job.Watcher.Progress("loading", done, total),
            layer =>
            {
                if (streamed.Contains(layer.Index))
                    stream!.Add(layer);
            });
        if (cuda)
            Cuda.ReleaseCached(model.Device);
        Since(MemoryPlan.Weights);
        var (alpha, rslora, biases) = (config.Adapter.Alpha, config.Adapter.UseRslora, config.Adapter.Biases);
        if (config.Adapter.From is { } from)
            (_, alpha, rslora, _, biases) = AdapterFiles.Load(job.Config.Full(from), model, config.Adapter.Dropout);
        else if (config.Adapter.Kind != AdapterKind.None)
            AdapterPass.Attach(model, config.Adapter, config.Train.Seed);
        var sampling = false;
        var trained = AdapterPass.Trained(model, config.Adapter.Kind, biases);
        using var optimizer = new Optimizer(trained, config.Train, model.Device, type, start.Rung.OffloadOptimizer);
        using var arrangement = new Arrangement(model, optimizer.ToHost, meter, () => sampling, stream, () => Stream(spill));
        arrangement.Take(start.Rung);
        using var scale = type == float16 ? new LossScale() : null;
        IReadOnlyList<(string, Tensor)> State() => scale is null ? optimizer.State : [.. optimizer.State, ("loss_scale", scale.State)];
        var states = Since("states");                                         // weights trained, gradients, two moments: equal parts
        foreach (var (name, parts) in new[] { (MemoryPlan.Adapters, 1), (MemoryPlan.Gradients, 1), (MemoryPlan.Optimizer, 2) })
            measured[name] = measured["states"] * parts / 4;
        if (resume is not null)
        {
            CheckpointFolder.Load(resume, State());
            optimizer.Restored();
        }
        job.Watcher.Stage("training", $"{optimizer.Count:N0} trained weights, {batches.TotalSteps:N0} steps of {config.Train.BatchSize} sequences on {job.Backend.Kind}");

        ready();
        var schedule = new Schedule(config.Train, batches.TotalSteps);
        var stepper = new Stepper(model, optimizer, schedule, config.Train, scale, meter);
        var saved = step;
        using var calm = new Calm();
        var ladder = new Ladder(rungs, start, arrangement, Room, Release, text =>
        {
            job.Watcher.Stage("memory", text);
            record.Append(new RunEvent(job.Clock.GetUtcNow(), step, "memory", text));
        });
        if (config.Memory.Rehearse && (cuda || meter.Limited))
            Rehearse();
        for (; step < batches.TotalSteps && !stop.IsCancellationRequested; step++, calm.Between())
        {
            sampling = step - saved < 3;
            var row = ladder.Hold($"step {step + 1}", () =>
            {
                batches.MicroBatch = ladder.Plan.Rung.MicroBatch;
                return stepper.Run(step, batches.Step(step), sampling);
            });
            record.Append([row]);
            job.Watcher.Step(row, batches.TotalSteps);
            if ((step + 1) % config.Checkpoint.Every == 0 && step + 1 < batches.TotalSteps)
                Save(step + 1);
        }
        if (saved != step || resume is null)
            Save(step);
        measured[MemoryPlan.Activations] = stepper.Activations;
        measured[MemoryPlan.WorkingSet] = Math.Max(0, meter.RunPeak - states - stepper.Activations);
        var ledger = ladder.Plan.Rows.Select(row => row with { Measured = measured.TryGetValue(row.Name, out var bytes) ? bytes : null }).ToList();
        job.Watcher.Ledger(ledger, measured: true);
        if (step < batches.TotalSteps)
        {
            record.End(new Outcome(RunStatus.Stopped, "stopped on request") { Ended = job.Clock.GetUtcNow(), Ledger = ledger });
            job.Watcher.Stage("stopped", $"after step {step} of {batches.TotalSteps}; run again to go on");
            return new(runId, RunStatus.Stopped, step, null, null);
        }

        Score? score = null;
        if (eval is not null)
        {
            score = ladder.Hold("the evaluation", () => Evaluation.Run(model, eval.Rows, ladder.Plan.Rung.MicroBatch, new Reporter(done => job.Watcher.Progress("evaluation", done, eval.Rows.Count)), CancellationToken.None));
            record.Append(new EvalRow(step, new Dictionary<string, double> { ["loss"] = score.Loss, ["perplexity"] = score.Perplexity, ["accuracy"] = score.Accuracy, ["tokens"] = score.Tokens }));
            job.Watcher.Stage("evaluation", $"loss {score.Loss:F4}, perplexity {score.Perplexity:F3}, accuracy {score.Accuracy:P1} of {score.Answers} answers");
        }
        var staged = adapterFolder + ".staged";
        if (Directory.Exists(staged))
            Directory.Delete(staged, recursive: true);
        Directory.CreateDirectory(staged);
        ladder.Hold("saving", () =>
        {
            if (config.Adapter.Kind == AdapterKind.None)
                MergedModel.Save(staged, job.Model, model);
            else
                AdapterFiles.Save(staged, model, alpha, rslora, config.Adapter.Dropout, biases, config.Model.Source);
            return true;
        });
        if (Directory.Exists(adapterFolder))
            Directory.Delete(adapterFolder, recursive: true);
        Directory.Move(staged, adapterFolder);
        try
        {
            record.Link(job.Artifacts.Put("adapter", adapterFolder));
        }
        catch (TrackingException e)
        {
            job.Watcher.Stage("tracking", $"{e.Message} The adapter is in {adapterFolder} only.");
        }
        job.Watcher.Stage("artifacts", adapterFolder);
        record.End(new Outcome(RunStatus.Finished) { Ended = job.Clock.GetUtcNow(), Ledger = ledger });
        return new(runId, RunStatus.Finished, step, adapterFolder, score);

        void Save(int at)
        {
            try
            {
                ladder.Hold($"the checkpoint of step {at}", () => checkpoints.Save(at, runId, job.Config.Json, hashes, State(), ladder.Plan.Rung.MicroBatch));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault($"The checkpoint of step {at} cannot be written to {checkpoints.Folder}.", found: e.Message,
                    next: "free some space and run again: it goes on from the checkpoint before", inner: e);
            }
            saved = at;
        }

        void Release()
        {
            stepper.Forget();
            calm.Collect();
            if (cuda)
                Cuda.ReleaseCached(model.Device);
        }

        // What is free, and what the run has already; within the limits that were set.
        long? Room(long resting)
        {
            var free = (cuda ? Cuda.FreeBytes() : HostMemory.FreeBytes()) + resting;
            var most = limit?.Invoke() ?? (config.Memory.BudgetGiB is { } gib ? (long)(gib * (1L << 30)) : null);
            return most is { } bytes ? Math.Min(bytes, free ?? long.MaxValue) : free;
        }

        void Rehearse()
        {
            job.Watcher.Stage("rehearsal", $"the longest batch, {longest:N0} tokens{(eval is null ? "" : ", an evaluation")}, a checkpoint's reading; --no-rehearsal skips it");
            ladder.Hold("the rehearsal of the longest batch", () =>
            {
                stepper.Rehearse(Rehearsal.Longest(ladder.Plan.Rung.MicroBatch, longest, config.Data.Packing));
                return true;
            });
            if (eval is not null)
            {
                ladder.Hold("the rehearsal of the evaluation", () =>
                {
                    Rehearsal.Evaluate(model, Math.Min(ladder.Plan.Rung.MicroBatch, eval.Rows.Count), eval.Longest);
                    return true;
                });
            }
            ladder.Hold("the rehearsal of a checkpoint", () =>
            {
                Rehearsal.Save(State());
                return true;
            });
            calm.Collect();                                                   // an evaluation has a calm of its own, which ended ours
        }
    }

    /// <summary>Loads a model with its frozen linears in 4 bits when the adapter is QLoRA's.</summary>
    public static Decoder LoadModel(string folder, ModelSpec spec, RunConfig config, ScalarType type, Device device, Action<int, int>? progress = null, Action<DecoderLayer>? built = null)
    {
        var total = spec.Tensors.Count;
        var compute = config.Quantization.ComputeType switch { DType.Float32 => float32, DType.Bfloat16 => bfloat16, DType.Float16 => float16, _ => type };
        using var weights = new WeightStream(folder, spec, type, device, module => config.Adapter.Kind == AdapterKind.Qlora && module != "lm_head",
            config.Quantization, compute, progress is null ? null : new Reporter(done => progress(done, total)), built);
        return new Decoder(spec, weights, type, device);
    }

    /// <summary>The type of a setting, or what suits the device: bf16 on a GPU that computes in it, fp16 on an older one, fp32 on a CPU.</summary>
    public static ScalarType ComputeType(DType dtype, Backend backend) => dtype switch
    {
        DType.Float32 => float32,
        DType.Bfloat16 => bfloat16,
        DType.Float16 when backend.Kind == "cuda" => float16,
        DType.Float16 => throw new UserFault("model.dtype float16 needs a GPU.", found: $"backend {backend.Kind}", next: "use bfloat16 or float32"),
        _ => backend.Kind != "cuda" ? float32 : Cuda.Capability() >= 80 ? bfloat16 : float16,
    };

    private static Dataset? Rows(Job job, ModelSpec spec, DataRole role, CancellationToken stop)
    {
        var stage = role == DataRole.Train ? "data" : "evaluation data";
        var reports = new DataReports(text => job.Watcher.Stage(stage, text), (done, total) => job.Watcher.Progress("tokenizing, MiB", done >> 20, total >> 20));
        var data = Dataset.Load(job.Config, new ModelText(job.Model, EndOfTurn(spec)), role, reports, stop);
        data?.Within(spec.VocabSize);
        if (data is not null)
            job.Watcher.Stage(stage, data.Summary(job.Config.Config.Data));
        return data;
    }

    /// <summary>Tokens that end an answer.</summary>
    public static HashSet<int> EndOfTurn(ModelSpec spec) => [.. spec.EosTokenIds];

    private static List<Override> Refusals(CheckpointManifest manifest, RunConfig config, Dictionary<string, string> hashes)
    {
        var differences = RunConfigFile.PinnedDifferences(manifest.Config, config).ToList();
        foreach (var key in new[] { "data.train", "model", "adapter.from" })
        {
            if (manifest.Hashes.GetValueOrDefault(key) != hashes.GetValueOrDefault(key))
                differences.Add(new($"content of {key}", manifest.Hashes.GetValueOrDefault(key, "none")[..4] + "…", hashes.GetValueOrDefault(key, "none")[..4] + "…"));
        }
        return differences;
    }

    /// <summary>This machine, as a plan needs to know it.</summary>
    private static PlanDevice PlanDevice(Backend backend, ScalarType type, MemoryConfig memory)
    {
        var cuda = backend.Kind == "cuda";
        return new(backend.Kind, cuda ? Cuda.FreeBytes() : HostMemory.FreeBytes(), type == float32 ? 4 : 2, HostBytes: !cuda ? null : memory.HostBudgetGiB is { } gib ? (long)(gib * (1L << 30)) : HostMemory.FreeBytes())
        {
            FusedAttention = cuda && type != float32 && Cuda.Capability() >= 80,
            Multiprocessors = cuda ? Cuda.Multiprocessors : 1,
        };
    }

    /// <summary>sha256 over names, sizes and contents of the weights.</summary>
    private static string ModelHash(string folder, string? only = null)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var file in only is null ? WeightStream.Files(folder) : [only])
        {
            sha.AppendData(System.Text.Encoding.UTF8.GetBytes(file));
            using var stream = File.OpenRead(Path.Combine(folder, file));
            var buffer = new byte[1 << 20];
            for (int count; (count = stream.Read(buffer)) > 0;)
                sha.AppendData(buffer, 0, count);
        }
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }

    private sealed class Reporter(Action<int> report) : IProgress<int>
    {
        public void Report(int value) => report(value);
    }
}
