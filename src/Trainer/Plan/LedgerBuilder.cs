using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Plan;

/// <summary>Adds up the footprints of a model's parts, or of those of a pipeline stage, row by row. The parts state
/// their own sizes (<see cref="LayerSpec"/>, <see cref="Footprints"/>); this class only adds rows.</summary>
internal sealed class LedgerBuilder
{
    // Taken beyond the other rows where it was measured (docs/memory.md): workspaces of cuBLAS and cuDNN; of the rows;
    // of 4-bit weights, whose small scales share the allocator's segments with freed memory.
    private const double GapBytes = 30e6,
        GapShare = 0.006,
        GapOfQuantized = 0.02;

    private readonly List<LedgerRow> ledger = [];
    private readonly RunConfig config;
    private readonly ModelSpec spec;
    private readonly PlanDevice device;
    private readonly Rung rung;
    private readonly IReadOnlyList<LinearSpec> linears;
    private readonly bool cuda,
        qlora,
        full,
        sharded,
        zero3,
        sumsUnits;
    private readonly int[] ring;
    private readonly long widest,
        streamed,
        weights,
        trained,
        owned;
    private readonly IReadOnlyList<LinearSpec>[] adaptedByLayer;
    private readonly long[] lowRank;

    // Weights beside the layers' linears: embeddings, norms, biases, head.
    private readonly long otherWeights;
    private readonly int adapted,
        inFlight;
    private long activations,
        working,
        keptOnHost;

    public LedgerBuilder(RunConfig config, ModelSpec spec, PlanDevice device, Rung rung)
    {
        (this.config, this.spec, this.device, this.rung) = (config, spec, device, rung);
        cuda = device.Kind == "cuda";
        (qlora, full) = (config.Adapter.Kind == AdapterKind.Qlora, config.Adapter.Kind == AdapterKind.None);
        linears = spec.Linears;
        otherWeights = spec.Parameters - linears.Sum(linear => linear.Weights);
        adaptedByLayer = [.. spec.Blocks.Select(layer => layer.Adapted(config.Adapter))];
        lowRank = Array.ConvertAll(adaptedByLayer, LowRank);
        widest = linears.Max(linear => linear.Weights);
        zero3 = rung.Strategy == DistributedStrategy.Zero3;
        // Sharded gradients are those of ZeRO-2, and of ZeRO-3 where the layers' weights are trained.
        sumsUnits = rung.Strategy == DistributedStrategy.Zero2 || (zero3 && full);
        var all = spec.Whole.Layers;
        var chosen = Rung.Streamed(
                all,
                zero3 ? all
                    : full ? 0
                    : rung.StreamLayers
            )
            .ToHashSet();
        ring = [.. Enumerable.Range(0, spec.Layers).Where(place => chosen.Contains(spec.Blocks[place].Index))];
        streamed = ring.Sum(LayerBytes);
        weights = full ? 0 : otherWeights * device.ComputeBytes + Enumerable.Range(0, spec.Layers).Sum(LayerBytes);
        (trained, adapted) = Trained();
        inFlight = spec.Stage.InFlight(device.MicroBatches(config.Train.BatchSize, rung.MicroBatch));
        sharded = rung.Strategy != DistributedStrategy.Ddp;
        owned = sharded ? (trained + device.Ranks - 1) / device.Ranks : trained;
    }

    /// <summary>Context and frozen weights.</summary>
    public LedgerBuilder AddModel()
    {
        if (device.ContextBytes > 0)
            Add(MemoryPlan.Context, device.ContextBytes, "the driver's and libtorch's own");
        if (!full)
        {
            var c = device.ComputeBytes;
            var each =
                !qlora ? $"{c} B"
                : config.Quantization.DoubleQuant ? "4.127 bit"
                : "4.5 bit";
            Add(
                MemoryPlan.Weights,
                weights - streamed + (ShardsOnDevice ? streamed / device.Ranks : 0),
                $"{otherWeights:N0} × {c} B + {spec.Parameters - otherWeights:N0} × {each}"
                    + (
                        ShardsOnDevice ? $" / {device.Ranks} ranks"
                        : streamed > 0 ? $" − {ring.Length} layers, {streamed:N0} B"
                        : ""
                    )
            );
        }
        if (streamed > 0)
            Add(MemoryPlan.Slots, 2 * ring.Max(LayerBytes), "two slots for layers' weights");
        if (qlora && cuda)
            Add(
                MemoryPlan.Scratch,
                widest * device.ComputeBytes,
                $"{widest:N0} × {device.ComputeBytes} B, one at a time"
            );
        return this;
    }

    /// <summary>Trained weights, gradients and optimizer.</summary>
    public LedgerBuilder AddTraining()
    {
        var c = device.ComputeBytes;
        var copy = c < 4 || sharded || (rung.OffloadOptimizer && cuda) ? c : 0;
        // Of layers that ranks divide each has its slice, of the rest all.
        var layers = zero3 && full ? spec.Blocks.Sum(TrainedOf) : 0;
        var copied = trained - layers + layers / device.Ranks;
        var each = sharded ? $"{trained:N0} / {device.Ranks} ranks" : $"{trained:N0}";
        Add(
            MemoryPlan.TrainedRow(config.Adapter.Kind),
            copied * copy + (rung.OffloadOptimizer ? 0 : owned * 4),
            (full ? "" : $"{adapted} modules, rank {config.Adapter.Rank}: ")
                + $"{copied:N0} trained weights × "
                + (
                    rung.OffloadOptimizer ? $"{c} B"
                    : sharded ? $"{c} B and {each} × 4 B"
                    : $"4 B{(c < 4 ? $" and a copy in {c} B" : "")}"
                )
        );
        if (sharded && !sumsUnits)
            Add(MemoryPlan.Gradients, (trained + owned) * 4, $"{trained:N0} × 4 B, and {each} × 4 B of their sum");
        else
            Add(MemoryPlan.Gradients, owned * 4, $"{each} × 4 B");
        var piece = Math.Min(owned, Footprints.OptimizerPiece);
        if (rung.OffloadOptimizer)
            Add(MemoryPlan.Optimizer, 24 * piece, $"two pieces of {piece:N0} × 3 × 4 B");
        else
            Add(MemoryPlan.Optimizer, owned * 8, $"{each} × 2 moments × 4 B");
        return this;
    }

    /// <summary>Activations and working set of a micro-batch.</summary>
    /// <param name="longest">Tokens of the longest sequence.</param>
    public LedgerBuilder AddBatch(int longest)
    {
        var tokens = rung.MicroBatch * Footprints.ContextTokens(longest, device.ContextRanks);
        if (rung.OffloadActivations)
            keptOnHost = inFlight * RunTwice.Sum(layer => layer.CheckpointedBytes(tokens, rung, device));
        activations =
            Activations(tokens) + Footprints.ContextMask(longest, rung.MicroBatch, config.Data.Packing, device);
        Add(MemoryPlan.Activations, activations, ActivationsWhy(tokens));
        var (head, logits) = (spec.HasHead ? Head(tokens) + RootGradient : 0, Math.Min(tokens, ChunkRows));
        var backward =
            PassingBytes
            + RootGradient
            + LayerGradient
            + spec.Blocks.Max(layer =>
                layer.BackwardBytes(tokens, rung.MicroBatch, config.Train.Deterministic, device)
            );
        working = Math.Max(head, backward) + SpareBytes(tokens);
        var passing =
            PassingBytes == 0 ? ""
            : qlora ? " and one expanded weight"
            : " and that of one weight";
        Add(
            MemoryPlan.WorkingSet,
            working,
            head >= backward
                ? $"logits of {logits:N0} tokens × {spec.VocabSize} × {device.ComputeBytes} B"
                : "gradients inside one layer" + passing
        );
        return this;
    }

    /// <summary>An evaluation. It saves nothing for a backward, so it matters only where its rows are longer. Its
    /// micro-batch is the run's, or all its rows where those are fewer.</summary>
    /// <param name="longest">Tokens of the longest sequence.</param>
    /// <param name="count">Sequences; null when that is not known.</param>
    public LedgerBuilder AddEvaluation(int longest, int? count)
    {
        var tokens =
            Math.Min(rung.MicroBatch, count ?? rung.MicroBatch)
            * Footprints.ContextTokens(longest, device.ContextRanks);
        var bytes =
            spec.Blocks.Max(layer => layer.ForwardBytes(tokens, device, LowRankOf(layer)))
            + (spec.HasHead ? Math.Min(tokens, ChunkRows) * LogitBytes : 0)
            - activations
            - working;
        if (bytes > 0)
            Add(MemoryPlan.Evaluation, bytes, $"{longest:N0} tokens in an evaluation, beyond what training takes");
        return this;
    }

    /// <summary>Workspaces of libraries, and bytes that the allocator cannot use, on a GPU.</summary>
    public LedgerBuilder AddFragmentation()
    {
        if (!cuda)
            return this;
        var rows = ledger.Sum(row => row.Bytes) - device.ContextBytes;
        Add(
            MemoryPlan.Fragmentation,
            (long)(GapBytes + GapShare * rows + (qlora ? GapOfQuantized * (weights - streamed) : 0)),
            $"libraries' workspaces, {GapBytes / 1e6:N0} MB; what the allocator rounds up and what lies "
                + $"free between, {GapShare:P1} of the rows above"
                + $"{(qlora ? $" and {GapOfQuantized:P0} of the 4-bit weights" : "")}"
        );
        return this;
    }

    /// <summary>Tensors that are offloaded to the host, or to a file where the host is too small.</summary>
    public LedgerBuilder AddHost()
    {
        if (keptOnHost > 0)
            Add(MemoryPlan.HostActivations, keptOnHost, $"of {RunTwice.Count()} layers{InFlightWhy}", "host");
        if (rung.OffloadOptimizer)
            Add(MemoryPlan.HostOptimizer, 12 * owned, $"{owned:N0} × (value + 2 moments) × 4 B", "host");
        if (OnHost > 0)
            Add(
                MemoryPlan.HostWeights,
                OnHost,
                $"of {ring.Length} layers" + (zero3 ? $", / {device.Ranks} ranks" : ""),
                Spills ? "disk" : "host"
            );
        if (cuda)
            Add(MemoryPlan.Staging, Footprints.StagingBytes, "pinned, between files and device", "host");
        return this;
    }

    public MemoryPlan Build()
    {
        var plan = new MemoryPlan(ledger, rung, true)
        {
            Trained = trained,
            Streamed = OnHost,
            Gathered = zero3 ? streamed / device.Ranks * (device.Ranks - 1) : 0,
            Spills = ledger.Exists(row => row.Place == "disk"),
            KeptOnHost = keptOnHost,
        };
        var hostFits = MemoryPlan.FitsInto(plan.HostBytes, device.HostBytes);
        var fits = hostFits && MemoryPlan.FitsInto(plan.PeakBytes, MemoryPlan.Budget(config, device));
        return plan with { HostFits = hostFits, Fits = fits };
    }

    /// <summary>Whether streamed weights lie in a file: the host has no memory for them beside its other
    /// rows.</summary>
    private bool Spills
    {
        get
        {
            var host = ledger.Where(row => row.Place == "host").Sum(row => row.Bytes);
            var staging = cuda ? Footprints.StagingBytes : 0;
            return !cuda || !MemoryPlan.FitsInto(host + staging + OnHost, device.HostBytes);
        }
    }

    /// <summary>Whether ranks hold their shards of the layers on the device.</summary>
    private bool ShardsOnDevice => zero3 && rung.StreamLayers == 0;

    /// <summary>Bytes of layers on the host, or in a file.</summary>
    private long OnHost => ShardsOnDevice ? 0 : streamed / (zero3 ? device.Ranks : 1);

    /// <summary>Numbers of a token that the adapters of a layer save for backward: low-rank products, and inputs after
    /// dropout.</summary>
    private long LowRank(IReadOnlyList<LinearSpec> modules) =>
        modules.Sum(linear => config.Adapter.RankOf(linear.Name) + (config.Adapter.Dropout > 0 ? linear.In : 0));

    private long LowRankOf(LayerSpec layer) => lowRank[Place(layer)];

    /// <summary>Which of the layers that are here it is.</summary>
    private int Place(LayerSpec layer) => layer.Index - spec.Blocks[0].Index;

    /// <summary>The layers that activation checkpointing runs twice: the last of the model runs once, its backward
    /// comes next.</summary>
    private IEnumerable<LayerSpec> RunTwice => spec.Blocks.Take(spec.Layers - (spec.Stage.IsLast ? 1 : 0));

    /// <summary>Bytes of hidden states that a stage of a pipeline goes on with where memory runs out: sent and
    /// received.</summary>
    private long SpareBytes(long tokens) =>
        spec.Stage.Count > 1 ? 2 * tokens * spec.HiddenSize * device.ComputeBytes : 0;

    private string InFlightWhy => inFlight > 1 ? $", {inFlight} micro-batches in flight" : "";

    private long ChunkRows => Footprints.ChunkRows(spec.VocabSize, device.ComputeBytes);

    /// <summary>Bytes of one position's logits, their loss included.</summary>
    private long LogitBytes => (long)spec.VocabSize * (device.ComputeBytes + (cuda && device.TensorRanks == 1 ? 0 : 8));

    /// <summary>Bytes of one weight in another form while a layer's backward needs it.</summary>
    private long PassingBytes =>
        qlora && !cuda ? widest * (8 + device.ComputeBytes)
        : full && device.ComputeBytes < 4 ? widest * 4
        : 0;

    /// <summary>Bytes of what is streamed of a layer: its frozen linears, or all of its weights where they are trained
    /// and ranks divide them.</summary>
    private long LayerBytes(int layer) =>
        full
            ? TrainedOf(spec.Blocks[layer]) * device.ComputeBytes
            : spec.Blocks[layer]
                .Linears.Sum(linear =>
                    qlora
                        ? Footprints.Quantized(linear.Weights, config.Quantization.DoubleQuant)
                        : linear.Weights * device.ComputeBytes
                );

    /// <summary>Bytes of the gradient of the weights outside the layers, which is whole during a micro-batch where
    /// gradients are sharded.</summary>
    private long RootGradient => sumsUnits ? 4 * (trained - spec.Blocks.Sum(TrainedOf)) : 0;

    /// <summary>Bytes of the gradient of a layer in its backward, where gradients are sharded: whole, and a rank's
    /// slice of the sum.</summary>
    private long LayerGradient
    {
        get
        {
            var most = sumsUnits ? spec.Blocks.Max(TrainedOf) : 0;
            return 4 * (most + most / device.Ranks);
        }
    }

    /// <summary>Trained weights of a layer.</summary>
    private long TrainedOf(LayerSpec layer)
    {
        if (full)
            return layer.Tensors.Sum(tensor => tensor.Elements);
        var modules = adaptedByLayer[Place(layer)];
        return Pairs(modules) + Biases(layer.Linears, modules);
    }

    private long Pairs(IEnumerable<LinearSpec> modules) =>
        modules.Sum(linear => config.Adapter.RankOf(linear.Name) * (linear.In + linear.Out));

    private long Biases(IEnumerable<LinearSpec> all, IEnumerable<LinearSpec> modules)
    {
        var biased = config.Adapter.Biases switch
        {
            BiasMode.All => all,
            BiasMode.LoraOnly => modules,
            _ => [],
        };
        return biased.Where(linear => linear.HasBias).Sum(linear => linear.Out);
    }

    private (long Trained, int Adapted) Trained()
    {
        if (full)
            return (spec.Parameters, 0);
        List<LinearSpec> modules = [.. adaptedByLayer.SelectMany(layer => layer)];
        if (spec.HasHead && config.Adapter.Targets.Cover(spec.Head.Name))
            modules.Add(spec.Head);
        return (Pairs(modules) + Biases(linears, modules), modules.Count);
    }

    /// <summary>Most bytes saved at once; a stage of a pipeline holds what several micro-batches save. Without
    /// recomputation all layers save; with it a layer that runs again saves
    /// beside the checkpoints of the layers before it. The last layer runs once.</summary>
    private long Activations(long tokens)
    {
        long below = 0,
            most = 0;
        foreach (var layer in spec.Blocks)
        {
            var saved = layer.InputBytes(tokens, device) + layer.SavedBytes(tokens, device, LowRankOf(layer));
            most = Math.Max(most, below + saved);
            if (!rung.Recompute)
                below += saved;
            else if (rung.OffloadActivations) // one layer's are on their way to the host
                below = Math.Max(below, layer.CheckpointedBytes(tokens, rung, device));
            else
                below += layer.CheckpointedBytes(tokens, rung, device);
        }
        return (inFlight - 1) * below + most;
    }

    private string ActivationsWhy(long tokens)
    {
        if (!rung.Recompute)
            return $"all that {spec.Layers} layers save for {tokens:N0} tokens{InFlightWhy}";
        var beside =
            rung.Keeps == SavedForBackward.Nothing
                ? ""
                : $", {rung.Keeps.ToString().ToLowerInvariant()} kept beside them";
        return $"{(rung.OffloadActivations ? 2 : spec.Layers)} layer inputs of {tokens:N0} tokens × "
            + $"{spec.HiddenSize} × "
            + $"{device.ComputeBytes} B{beside}{InFlightWhy}, and all of one layer";
    }

    /// <summary>Bytes while the loss is formed: the head's input and its gradient, one chunk of logits, and the
    /// gradient of a trained head.</summary>
    private long Head(long tokens) =>
        Math.Min(tokens, ChunkRows) * LogitBytes
        + 4 * tokens * spec.HiddenSize * device.ComputeBytes
        + (full && device.ComputeBytes < 4 ? 4L * spec.HiddenSize * spec.VocabSize : 0);

    private void Add(string name, long bytes, string why, string place = "device") =>
        ledger.Add(new(name, bytes, place, why));
}
