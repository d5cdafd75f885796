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
    /// <summary>Facts of the surroundings for the record: versions, commit.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();
    public string? GitCommit { get; init; }
    public bool GitDirty { get; init; }
    public TimeProvider Clock { get; init; } = TimeProvider.System;
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

        var rows = Rows(job, spec, config.Data.Train, "data");
        var eval = config.Data.Eval is { } file ? Rows(job, spec, file, "evaluation data") : null;
        var longest = config.Data.Packing ? config.Data.MaxLength : rows.Rows.Max(row => row.Ids.Length);
        longest = Batches.Padded(longest);
        var type = ComputeType(config.Model.Dtype, job.Backend);
        var checkpoints = new CheckpointFolder(Path.Combine(job.Output, "checkpoints"), config.Checkpoint.Keep);
        if (job.FromStart)
            checkpoints.Clear();
        var found = checkpoints.Latest(text => job.Watcher.Stage("resume", text));

        // What another start would choose from the memory that is free now, a resumed run has chosen already.
        var finished = found is { } last && job.Store.Get(last.Manifest.RunId)?.Status == RunStatus.Finished;
        var settled = found is { Manifest.MicroBatch: { } micro } && !finished ? config with { Train = config.Train with { MicroBatch = micro } } : config;
        var fused = job.Backend.Kind == "cuda" && type != float32 && Cuda.Capability() >= 80;
        var plan = MemoryPlan.For(settled, spec, new PlanDevice(job.Backend.Kind, Budget(job.Backend), type == float32 ? 4 : 2) { FusedAttention = fused }, longest);
        job.Watcher.Ledger(plan.Rows, measured: false);
        if (!plan.Fits)
        {
            throw new UserFault("This does not fit into memory.", found: $"{plan.PeakBytes / 1073741824.0:F2} GiB needed with the smallest micro-batch",
                next: settled != config ? $"free memory for the micro-batch of {plan.MicroBatch} that this run began with, or run again with --from-start"
                    : "use adapter.kind = \"qlora\", a smaller train.microBatch or data.maxLength, or raise memory.budgetGiB");
        }
        job.Watcher.Stage("memory", $"{plan.PeakBytes / 1048576.0:N0} MiB; micro-batch {plan.MicroBatch}, {(plan.Recompute ? "activations recomputed" + (plan.Keeps == Kept.Nothing ? "" : $", {plan.Keeps.ToString().ToLowerInvariant()} kept") : "activations kept")}");

        var batches = new Batches(rows.Rows, config.Data, config.Train, plan.MicroBatch);
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
            Environment = job.Environment,
            GitCommit = job.GitCommit,
            GitDirty = job.GitDirty,
            Tags = config.Tracking.Tags,
            Ledger = plan.Rows,
            TotalSteps = batches.TotalSteps,
        }, step, fault => job.Watcher.Stage("tracking", fault), Path.Combine(job.Output, "unrecorded"));
        if (step > 0)
            record.Append(new RunEvent(job.Clock.GetUtcNow(), step, "resume", $"goes on after step {step} of {batches.TotalSteps}"));
        try
        {
            return Train(job, spec, plan, type, batches, eval, checkpoints, adapterFolder, found?.Path, step, runId, hashes, record, stop);
        }
        catch (Exception e)
        {
            record.End(new Outcome(RunStatus.Failed, e.Message) { Ended = job.Clock.GetUtcNow() });
            throw;
        }
    }

    private static Result Train(Job job, ModelSpec spec, MemoryPlan plan, ScalarType type, Batches batches, Dataset? eval, CheckpointFolder checkpoints,
        string adapterFolder, string? resume, int step, string runId, IReadOnlyDictionary<string, string> hashes, IRunWriter record, CancellationToken stop)
    {
        var config = job.Config.Config;
        var measured = new Dictionary<string, long>();
        var meter = new Meter(job.Backend.Kind == "cuda" ? Cuda.UsedBytes : null);
        var before = meter.Sample();
        long Since(string name)
        {
            var now = meter.Sample();
            measured[name] = Math.Max(0, now - before);
            return before = now;
        }

        using var model = LoadModel(job.Model, spec, config, type, job.Backend.Device, (done, total) => job.Watcher.Progress("loading", done, total));
        Since(MemoryPlan.Weights);
        var (alpha, rslora, biases) = (config.Adapter.Alpha, config.Adapter.UseRslora, config.Adapter.Biases);
        if (config.Adapter.From is { } from)
            (_, alpha, rslora, _, biases) = AdapterFiles.Load(job.Config.Full(from), model, config.Adapter.Dropout);
        else if (config.Adapter.Kind != AdapterKind.None)
            AdapterPass.Attach(model, config.Adapter, config.Train.Seed);
        if (plan.Recompute)
            Recompute.Attach(model, plan.Keeps);
        var sampling = false;
        Metered(model, meter, () => sampling);

        var trained = AdapterPass.Trained(model, config.Adapter.Kind, biases);
        using var optimizer = new Optimizer(trained, config.Train, model.Device, type);
        using var scale = type == float16 ? new LossScale() : null;
        IReadOnlyList<(string, Tensor)> state = scale is null ? optimizer.State : [.. optimizer.State, ("loss_scale", scale.State)];
        var states = Since("states");                                         // weights trained, gradients, two moments: equal parts
        foreach (var (name, parts) in new[] { (MemoryPlan.Adapters, 1), (MemoryPlan.Gradients, 1), (MemoryPlan.Optimizer, 2) })
            measured[name] = measured["states"] * parts / 4;
        if (resume is not null)
        {
            CheckpointFolder.Load(resume, state);
            optimizer.Restored();
        }
        job.Watcher.Stage("training", $"{optimizer.Count:N0} trained weights, {batches.TotalSteps:N0} steps of {config.Train.BatchSize} sequences on {job.Backend.Kind}");

        var schedule = new Schedule(config.Train, batches.TotalSteps);
        var stepper = new Stepper(model, optimizer, schedule, config.Train, scale, meter);
        var saved = step;
        using var calm = new Calm();
        for (; step < batches.TotalSteps && !stop.IsCancellationRequested; step++, calm.Between())
        {
            sampling = step - saved < 3;
            var row = stepper.Run(step, batches.Step(step), sampling);
            record.Append([row]);
            job.Watcher.Step(row, batches.TotalSteps);
            if ((step + 1) % config.Checkpoint.Every == 0 && step + 1 < batches.TotalSteps)
                Save(step + 1);
        }
        if (saved != step || resume is null)
            Save(step);
        measured[MemoryPlan.Activations] = stepper.Activations;
        measured[MemoryPlan.WorkingSet] = Math.Max(0, meter.RunPeak - states - stepper.Activations);
        var ledger = plan.Rows.Select(row => row with { Measured = measured.TryGetValue(row.Name, out var bytes) ? bytes : null }).ToList();
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
            score = Evaluation.Run(model, eval.Rows, Math.Max(plan.MicroBatch, 1), new Reporter(done => job.Watcher.Progress("evaluation", done, eval.Rows.Count)), CancellationToken.None);
            record.Append(new EvalRow(step, new Dictionary<string, double> { ["loss"] = score.Loss, ["perplexity"] = score.Perplexity, ["accuracy"] = score.Accuracy, ["tokens"] = score.Tokens }));
            job.Watcher.Stage("evaluation", $"loss {score.Loss:F4}, perplexity {score.Perplexity:F3}, accuracy {score.Accuracy:P1} of {score.Answers} answers");
        }
        var staged = adapterFolder + ".staged";
        if (Directory.Exists(staged))
            Directory.Delete(staged, recursive: true);
        Directory.CreateDirectory(staged);
        if (config.Adapter.Kind == AdapterKind.None)
            MergedModel.Save(staged, job.Model, model);
        else
            AdapterFiles.Save(staged, model, alpha, rslora, config.Adapter.Dropout, biases, config.Model.Source);
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
                checkpoints.Save(at, runId, job.Config.Json, hashes, state, plan.MicroBatch);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault($"The checkpoint of step {at} cannot be written to {checkpoints.Folder}.", found: e.Message,
                    next: "free some space and run again: it goes on from the checkpoint before", inner: e);
            }
            saved = at;
        }
    }

    /// <summary>Loads a model with its frozen linears in 4 bits when the adapter is QLoRA's.</summary>
    public static Decoder LoadModel(string folder, ModelSpec spec, RunConfig config, ScalarType type, Device device, Action<int, int>? progress = null)
    {
        var total = spec.Tensors.Count;
        var compute = config.Quantization.ComputeType switch { DType.Float32 => float32, DType.Bfloat16 => bfloat16, DType.Float16 => float16, _ => type };
        using var weights = new WeightStream(folder, spec, type, device, module => config.Adapter.Kind == AdapterKind.Qlora && module != "lm_head",
            config.Quantization, compute, progress is null ? null : new Reporter(done => progress(done, total)));
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

    /// <summary>Reads the meter where a layer ends, out and back, while <paramref name="on"/> says so: peaks lie there.</summary>
    private static void Metered(Decoder model, Meter meter, Func<bool> on)
    {
        var run = model.RunLayer;
        model.RunLayer = (layer, x, pass) =>
        {
            var result = run(layer, x, pass);
            if (!on())
                return result;
            meter.Sample();
            return result.Back is not { } back ? result : new(result.Value, (gradient, onto) =>
            {
                var g = back(gradient, onto);
                meter.Sample();
                return g;
            });
        };
    }

    private static Dataset Rows(Job job, ModelSpec spec, string file, string stage)
    {
        var ends = EndOfTurn(spec);
        Tokenizer? tokenizer = null;
        var data = Dataset.Load(job.Config.Full(file), () => tokenizer ??= Tokenizer.Load(job.Model), () => ChatTemplate.Load(job.Model), job.Config.Config.Data, ends);
        var beyond = data.Rows.FirstOrDefault(row => row.Ids.Any(id => id < 0 || id >= spec.VocabSize) || row.Labels.Any(label => label >= spec.VocabSize));
        if (beyond is not null)
            throw new UserFault($"{file}:{beyond.Line}: a token id is outside the model's vocabulary of {spec.VocabSize}.", found: $"{beyond.Ids.Max()}", next: "tokenize with the model's own tokenizer");
        job.Watcher.Stage(stage, $"{data.Rows.Count:N0} rows, {data.Tokens:N0} tokens, {data.Trained:N0} trained{(data.Truncated > 0 ? $", {data.Truncated:N0} rows cut at {job.Config.Config.Data.MaxLength}" : "")}");
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

    private static long? Budget(Backend backend) => backend.Kind == "cuda" ? Cuda.FreeBytes() : HostMemory.FreeBytes();

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
