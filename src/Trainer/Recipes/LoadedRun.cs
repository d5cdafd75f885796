using Memopt.Tracking;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>A model on the device with all that trains it: adapters, optimizer, memory passes, loss scale. Owns them,
/// and measures what they hold.</summary>
internal sealed class LoadedRun : ILadderTarget, IDisposable
{
    private readonly FineTuneJob job;
    private readonly TrainingInputs inputs;
    private readonly RunConfig config;
    private readonly bool cuda;
    private readonly long empty;
    private readonly Func<long?>? limit;
    private Nf4Linear? expanding;
    private LayerStream? stream;
    private Decoder? model;
    private Optimizer? optimizer;
    private MemorySettings? settings;

    private LoadedRun(FineTuneJob job, TrainingInputs inputs)
    {
        (this.job, this.inputs, config, cuda) = (job, inputs, job.Config.Settings, job.Backend.Kind == "cuda");
        var used = cuda ? Cuda.UsedBytes : (Func<long>?)null;
        empty = new Meter(used).Now();
        // On a GPU the meter reads what all programs have: there a budget is the plan's to keep, and the allocator's to
        // refuse.
        limit = job.MemoryLimit ?? (cuda || Budget is not { } budget ? null : () => budget);
        Meter = new Meter(used, limit is null ? null : () => empty + limit());
        Scaler = inputs.Type == float16 ? new GradScaler() : null;
    }

    public Decoder Model => model!;

    public Optimizer Optimizer => optimizer!;

    public GradScaler? Scaler { get; }

    public Meter Meter { get; }

    /// <summary>Frees what an interrupted action left: set by the loop that runs the actions.</summary>
    public Action Released { get; set; } = () => { };

    /// <summary>What a checkpoint holds: weights, moments and the loss scale, by name.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> State =>
        Scaler is null ? Optimizer.State : [.. Optimizer.State, ("loss_scale", Scaler.State)];

    /// <summary>The stage of the pipeline that this rank is.</summary>
    private PipelineStage Stage => new(job.World.Mesh.Pipeline.Stage, job.World.Mesh.Pipeline.Stages);

    private long? Budget => config.Memory.BudgetGiB is { } gib ? (long)(gib * (1L << 30)) : null;

    /// <summary>The state of the whole weights, which the main rank writes; null where each rank writes its shard. All
    /// ranks call it.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)>? GatherState() =>
        !Optimizer.WritesWhole ? null
        : Scaler is null ? Optimizer.GatherState()
        : [.. Optimizer.GatherState(), ("loss_scale", Scaler.State.clone())];

    /// <summary>Loads a model and makes it ready to train on a plan, from a checkpoint where there is one.</summary>
    /// <param name="job">The job.</param>
    /// <param name="inputs">Its model and rows.</param>
    /// <param name="plan">The memory settings to begin with.</param>
    /// <param name="spills">Whether a later rung may stream from a file: then what streams is in one from the
    /// beginning, and is not moved again.</param>
    /// <param name="checkpoint">Folder of a checkpoint, or null.</param>
    public static LoadedRun Load(
        FineTuneJob job,
        TrainingInputs inputs,
        MemoryPlan plan,
        bool spills,
        string? checkpoint
    )
    {
        var run = new LoadedRun(job, inputs);
        try
        {
            run.Meter.Sample();
            run.LoadModel(plan); // frozen linears are quantized as they are read
            run.AttachAdapter();
            run.MakeOptimizer(plan, spills);
            run.settings!.Apply(plan.Rung); // recomputation, offload, streaming
            run.Meter.Sample();
            run.Restore(checkpoint);
            return run;
        }
        catch
        {
            run.Dispose();
            throw;
        }
    }

    /// <summary>Applies another rung.</summary>
    public void Apply(Rung rung) => job.World.RunOnAll(() => settings!.Apply(rung));

    /// <summary>Frees what an interrupted action left on the device.</summary>
    public void Release()
    {
        Released();
        if (cuda)
            Cuda.EmptyCache(Model.Device);
    }

    /// <summary>Bytes that are free, and those that the run has already; within the limits that were set.</summary>
    public long? AvailableBytes(long persistent)
    {
        var free = (cuda ? Cuda.FreeBytes() : HostMemory.FreeBytes() / job.World.LocalSize) + persistent;
        return job.World.Least((limit?.Invoke() ?? Budget) is { } most ? Math.Min(most, free ?? long.MaxValue) : free);
    }

    /// <summary>A plan's rows with the bytes that the run holds.</summary>
    public IReadOnlyList<LedgerRow> Measure(MemoryPlan plan, TrainStep steps)
    {
        var rows = new MeasuredRows();
        rows.Add(MemoryPlan.Weights, Model.FrozenBytes);
        rows.Add(MemoryPlan.Scratch, expanding?.ScratchBytes ?? 0);
        Optimizer.Measure(rows, config.Adapter.Kind);
        settings!.Measure(rows);
        if (cuda)
        {
            rows.Add(MemoryPlan.Staging, Staging.Bytes);
            Cuda.EmptyCache(Model.Device);
            rows.Add(MemoryPlan.Fragmentation, Math.Max(0, Meter.Now() - empty - rows.PersistentBytes));
        }
        rows.Add(MemoryPlan.Activations, steps.Activations);
        rows.Add(MemoryPlan.WorkingSet, steps.WorkingSet);
        return rows.Fill(plan.Stages[Stage.Index].Rows);
    }

    public void Dispose()
    {
        Scaler?.Dispose();
        settings?.Dispose();
        optimizer?.Dispose();
        model?.Dispose();
        stream?.Dispose();
    }

    private void LoadModel(MemoryPlan plan)
    {
        var spec = PipelineStages.Cut(inputs.Spec, Stage.Count, config.Adapter.Kind, inputs.Longest)[Stage.Index];
        var (rung, all) = (plan.Rung, inputs.Spec.Layers);
        var sharded = rung.Strategy == DistributedStrategy.Zero3;
        var layers = Rung.Streamed(all, sharded ? all : rung.StreamLayers).ToHashSet();
        stream =
            sharded ? new(all, job.Backend.Device, Store(rung.StreamLayers == 0, plan.Spills), job.World.Mesh.Data)
            : layers.Count > 0 ? NewStream(plan.Spills)
            : null;
        model = ModelLoader.Load(
            job.Model,
            spec,
            config,
            inputs.Type,
            job.Backend.Device,
            (done, total) => job.Observer.Progress("loading", done, total),
            layer =>
            {
                if (!layers.Contains(layer.Index))
                    return;
                if (config.Adapter.Kind == AdapterKind.None)
                    stream!.Add(AdapterPass.Trained(layer, AdapterKind.None, BiasMode.None));
                else
                    stream!.Add(layer);
            },
            job.World.Mesh.Tensor is { Size: > 1 } tensor ? new(tensor) : null
        );
        if (job.World.Mesh.Context is { Size: > 1 } ranks)
            model.ContextParallel = new(ranks);
        if (cuda)
            Cuda.EmptyCache(model.Device);
        Meter.Sample();
        expanding = model.Linears().Select(slot => slot.Linear).OfType<Nf4Linear>().FirstOrDefault();
        expanding?.AllocateScratch();
    }

    private void AttachAdapter()
    {
        if (job.Config.StartingAdapter is { } from)
            AdapterFiles.Load(from, Model, config.Adapter.Dropout);
        else if (config.Adapter.Kind != AdapterKind.None)
            AdapterPass.Attach(Model, config.Adapter, config.Train.Seed);
    }

    private void MakeOptimizer(MemoryPlan plan, bool spills)
    {
        var units = StageUnits.Of(
            AdapterPass.Trained(Model, config.Adapter.Kind, config.Adapter.Biases),
            Model.Spec,
            [.. plan.Stages.Select(stage => stage.Trained)],
            full: config.Adapter.Kind == AdapterKind.None
        );
        optimizer = new Optimizer(
            units,
            config.Train,
            Model.Device,
            inputs.Type,
            plan.Rung.OffloadOptimizer,
            job.World.Mesh.Data,
            plan.Rung.Strategy,
            job.World.Mesh.Tensor,
            stream,
            job.World.Mesh.Pipeline.Group
        );
        settings = new MemorySettings(
            Model,
            optimizer.OffloadToHost,
            Meter,
            stream,
            () => NewStream(spills),
            optimizer.Gradient
        );
    }

    private LayerStream NewStream(bool spill) =>
        new(inputs.Spec.Layers, job.Backend.Device, Store(onDevice: false, spill));

    private LayerStore Store(bool onDevice, bool spill) =>
        onDevice ? new DeviceStore(job.Backend.Device)
        : cuda && !spill ? new HostStore()
        : new FileStore(Path.Combine(job.Output, job.RankFile("streamed.weights")), cuda);

    private void Restore(string? checkpoint)
    {
        if (checkpoint is null)
            return;
        if (Optimizer.WritesWhole)
            RestoreWhole(checkpoint);
        else
            CheckpointFolder.Load(checkpoint, State, Optimizer.Layout, job.World.Mesh.Data.Rank);
        // Where it is sharded the ranks gather it, which is no part of loading: see Training.
        if (!Optimizer.IsSharded)
            Optimizer.SyncComputeCopy();
    }

    /// <summary>Reads the state of the whole weights, whoever wrote it, and takes this rank's part.</summary>
    private void RestoreWhole(string checkpoint)
    {
        using var scope = NewDisposeScope();
        var whole = Optimizer
            .State.Select(array => (array.Name, empty([Optimizer.WholeLayout.Count], float32)))
            .ToList();
        CheckpointFolder.Load(
            checkpoint,
            Scaler is null ? whole : [.. whole, ("loss_scale", Scaler.State)],
            Optimizer.WholeLayout,
            rank: 0
        );
        Optimizer.ScatterState(whole);
    }
}
