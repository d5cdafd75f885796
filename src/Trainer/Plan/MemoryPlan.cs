using Memopt.Tracking;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan;

/// <summary>Bytes that training on a rung will need, row by row, from config.json and the settings alone. Every row
/// but the last is counted from what the parts in Models/ keep.
/// </summary>
/// <param name="Rows">What takes memory, on the device and on the host.</param>
/// <param name="Rung">What was given up.</param>
/// <param name="Fits">Whether there is room for it, with a margin.</param>
internal sealed record MemoryPlan(IReadOnlyList<LedgerRow> Rows, Rung Rung, bool Fits)
{
    /// <summary>Rows' names, shared with the meter.</summary>
    public const string Context = "CUDA context",
        Weights = "weights",
        Slots = "streaming slots",
        Scratch = "expanded weight",
        TrainedWeights = "trained weights",
        Adapters = "adapters",
        Gradients = "gradients",
        Optimizer = "optimizer",
        Activations = "activations",
        WorkingSet = "working set",
        Evaluation = "evaluation",
        Fragmentation = "rounding and gaps",
        HostActivations = "activations on the host",
        HostOptimizer = "optimizer on the host",
        HostWeights = "streamed weights",
        Staging = "staging buffers";

    /// <summary>The row of the weights that are trained: the model's own, or the adapters.</summary>
    public static string TrainedRow(AdapterKind kind) => kind == AdapterKind.None ? TrainedWeights : Adapters;

    /// <summary>Trained weights that an optimizer on the host works on at once; two pieces of value and moments are on
    /// the device.</summary>
    public const long OptimizerPiece = 8 << 20;

    // What was taken beyond the other rows where it was measured (docs/memory.md): workspaces of cuBLAS and cuDNN; of
    // the rows; of 4-bit weights, whose small scales share the allocator's segments with what was freed.
    private const double GapBytes = 30e6,
        GapShare = 0.006,
        GapOfQuantized = 0.02;

    // Left free when a strategy is chosen.
    private const double Margin = 0.02;

    /// <summary>On the device.</summary>
    public long PeakBytes => On("device");

    /// <summary>On the host of a GPU, beyond the program itself.</summary>
    public long HostBytes => On("host");

    /// <summary>Whether the host has room for its part.</summary>
    public bool HostFits { get; init; } = true;

    /// <summary>Trained weights.</summary>
    public long Trained { get; init; }

    /// <summary>Bytes of weights that are streamed.</summary>
    public long Streamed { get; init; }

    /// <summary>Whether they lie in a file, the host being too small.</summary>
    public bool Spills { get; init; }

    /// <summary>Bytes of a micro-batch that recomputation keeps on the host.</summary>
    public long KeptOnHost { get; init; }

    /// <summary>Device bytes that stay between steps.</summary>
    public long PersistentBytes =>
        Rows.Where(row => row.Place == "device" && IsPersistent(row.Name)).Sum(row => row.Bytes);

    /// <summary>Whether a row's bytes stay on the device between steps.</summary>
    public static bool IsPersistent(string row) =>
        row is Context or Weights or Slots or Scratch or TrainedWeights or Adapters or Gradients or Optimizer;

    /// <summary>The fastest rung that fits; where none does, the smallest.</summary>
    /// <param name="config">The run's settings; what is written in them is kept as written.</param>
    /// <param name="spec">The model.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="longest">Tokens of the longest sequence.</param>
    /// <param name="evaluated">Of the longest one in an evaluation.</param>
    /// <param name="judged">Sequences of an evaluation; null when that is not known.</param>
    public static MemoryPlan For(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int longest,
        int evaluated = 0,
        int? judged = null
    )
    {
        var ladder = Ladder(config, spec, device, longest, evaluated, judged);
        return ladder.FirstOrDefault(plan => plan.Fits) ?? ladder.MinBy(plan => plan.PeakBytes)!;
    }

    /// <summary>Every rung that the settings allow, the fastest first.</summary>
    public static IReadOnlyList<MemoryPlan> Ladder(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int longest,
        int evaluated = 0,
        int? judged = null
    ) =>
        [
            .. Rung.All(config, spec, device)
                .Select(rung => Estimate(config, spec, device, longest, rung, evaluated, judged))
                .OrderBy(plan =>
                    CostModel.Seconds(spec, config.Adapter.Kind, plan, device, longest, config.Train.BatchSize)
                )
                .ThenBy(plan => plan.PeakBytes),
        ];

    /// <summary>Whether a plan fits into so many bytes of device memory, with a margin.</summary>
    public static bool FitsInto(long peak, long? budget) => budget is null || peak <= budget * (1 - Margin);

    internal static MemoryPlan Estimate(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int longest,
        Rung rung,
        int evaluated = 0,
        int? judged = null
    )
    {
        var (c, cuda) = (device.ComputeBytes, device.Kind == "cuda");
        var (linears, qlora, full) = (
            spec.Linears,
            config.Adapter.Kind == AdapterKind.Qlora,
            config.Adapter.Kind == AdapterKind.None
        );
        long Frozen(long weights) => qlora ? Quantized(weights, config.Quantization.DoubleQuant) : weights * c;
        var linearWeights = linears.Sum(l => l.In * l.Out);
        var others = spec.Parameters - linearWeights;
        var layerBytes = spec.LayerLinears(0).Sum(l => Frozen(l.In * l.Out));
        var streamed = full ? 0 : rung.StreamLayers * layerBytes;
        var weightBytes = full ? 0 : others * c + linears.Sum(l => Frozen(l.In * l.Out)) - streamed;
        var adapted = full
            ? []
            : linears
                .Append(new("lm_head", spec.HiddenSize, spec.VocabSize, false))
                .Where(l => config.Adapter.Targets.Cover(l.Name))
                .ToList();
        var rank = config.Adapter.Rank;
        var biased = config.Adapter.Biases switch
        {
            BiasMode.All => linears,
            BiasMode.LoraOnly => adapted,
            _ => [],
        };
        var count = full
            ? spec.Parameters
            : adapted.Sum(l => config.Adapter.RankOf(l.Name) * (l.In + l.Out))
                + biased.Where(l => l.HasBias).Sum(l => l.Out);

        var tokens = (long)rung.MicroBatch * longest;
        long h = spec.HiddenSize,
            q = (long)spec.Heads * spec.HeadDim,
            m = spec.IntermediateSize;
        var layer = LayerBytes(spec, tokens, device, config.Adapter);
        var input = tokens * h * c;
        var kept = rung.Recompute
            ? input
                + (
                    rung.Keeps.HasFlag(SavedForBackward.Attention) && device.FusedAttention
                        ? tokens * (q * c + spec.Heads * 4)
                        : 0
                )
                + (rung.Keeps.HasFlag(SavedForBackward.Residual) ? input : 0)
            : 0;
        var away = rung.OffloadActivations ? Math.Max(0, spec.Layers - 1) * kept : 0;
        var activations = !rung.Recompute
            ? spec.Layers * (input + layer)
            : input + layer + (rung.OffloadActivations ? Math.Min(1, spec.Layers - 1) : spec.Layers - 1) * kept;

        // While the loss is formed: what the head was given and its gradient, and one chunk of logits. In backward
        // through a layer that is run again, the last one having given up its own: the gradient, the layer's own, and
        // either the gradient within the feed-forward or those of attention.
        var rows = Math.Min(tokens, ChunkRows(spec.VocabSize, c));
        var head =
            rows * spec.VocabSize * (c + (cuda ? 0 : 8)) + 4 * input + (full && c < 4 ? 4 * h * spec.VocabSize : 0);
        var widest = linears.Max(l => l.In * l.Out);
        var passing =
            qlora && !cuda ? widest * (8 + c)
            : full && c < 4 ? widest * 4
            : 0;
        // The gradient of q is summed in fp32; in a fixed order in as many parts as it takes for every multiprocessor
        // to have a head. What of attention's is smaller than gate or up goes where they were.
        long kv = (long)spec.KvHeads * spec.HeadDim,
            left = 2 * tokens * m * c;
        var parts = config.Train.Deterministic
            ? (device.Multiprocessors + rung.MicroBatch * spec.Heads - 1) / (rung.MicroBatch * spec.Heads)
            : 1;
        var (sums, rest) = device.FusedAttention
            ? (4 * tokens * q * parts, tokens * (3 * q + (spec.FusedQkv ? q + 2 * kv : 0)) * c)
            : (0, tokens * q * 8 * c);
        var attention = sums > left / 2 ? sums + Math.Max(0, rest - left) : Math.Max(0, sums + rest - left);
        var working = Math.Max(head, passing + Math.Max(tokens * m * c + 2 * input, 3 * input + attention));
        // An evaluation keeps nothing: it matters where its rows are longer. Its micro-batch is the run's, or all its
        // rows where those are fewer.
        var atOnce = (long)Math.Min(rung.MicroBatch, judged ?? rung.MicroBatch) * evaluated;
        var evaluation = Math.Max(
            0,
            LayerBytes(spec, atOnce, device, config.Adapter)
                + atOnce * (m + 3 * h) * c
                + Math.Min(atOnce, ChunkRows(spec.VocabSize, c)) * spec.VocabSize * (c + (cuda ? 0 : 8))
                - activations
                - working
        );

        LedgerRow Row(string name, long bytes, string why, string place = "device") => new(name, bytes, place, why);
        var ledger = new List<LedgerRow>();
        if (device.ContextBytes > 0)
            ledger.Add(Row(Context, device.ContextBytes, "the driver's and libtorch's own"));
        if (!full)
        {
            var bytes =
                !qlora ? $"{c} B"
                : config.Quantization.DoubleQuant ? "4.127 bit"
                : "4.5 bit";
            ledger.Add(
                Row(
                    Weights,
                    weightBytes,
                    $"{others:N0} × {c} B + {linearWeights:N0} × {bytes}"
                        + (streamed > 0 ? $" − {rung.StreamLayers} layers × {layerBytes:N0} B" : "")
                )
            );
        }
        if (streamed > 0)
            ledger.Add(Row(Slots, 2 * layerBytes, "two slots for layers' weights"));
        if (qlora && cuda)
            ledger.Add(Row(Scratch, widest * c, $"{widest:N0} × {c} B, one at a time"));
        var values =
            count * (c < 4 || (rung.OffloadOptimizer && cuda) ? c : 0) + (rung.OffloadOptimizer ? 0 : count * 4);
        ledger.Add(
            Row(
                TrainedRow(config.Adapter.Kind),
                values,
                (full ? "" : $"{adapted.Count} modules, rank {rank}: ")
                    + $"{count:N0} trained weights × "
                    + (rung.OffloadOptimizer ? $"{c} B" : $"4 B{(c < 4 ? $" and a copy in {c} B" : "")}")
            )
        );
        ledger.Add(Row(Gradients, count * 4, $"{count:N0} × 4 B"));
        ledger.Add(
            rung.OffloadOptimizer
                ? Row(
                    Optimizer,
                    24 * Math.Min(count, OptimizerPiece),
                    $"two pieces of {Math.Min(count, OptimizerPiece):N0} × 3 × 4 B"
                )
                : Row(Optimizer, count * 8, $"{count:N0} × 2 moments × 4 B")
        );
        var keptToo =
            rung.Keeps == SavedForBackward.Nothing
                ? ""
                : $", {rung.Keeps.ToString().ToLowerInvariant()} kept beside them";
        ledger.Add(
            Row(
                Activations,
                activations,
                !rung.Recompute
                    ? $"{spec.Layers} layers × {input + layer:N0} B for {tokens:N0} tokens"
                    : $"{(rung.OffloadActivations ? 2 : spec.Layers)} layer inputs of {tokens:N0} tokens × {h} × "
                        + $"{c} B{keptToo}, and all of one layer"
            )
        );
        ledger.Add(
            Row(
                WorkingSet,
                working,
                head >= working
                    ? $"logits of {rows:N0} tokens × {spec.VocabSize} × {c} B"
                    : "gradients inside one layer"
                        + (
                            passing > 0
                                ? qlora
                                    ? " and one expanded weight"
                                    : " and that of one weight"
                                : ""
                        )
            )
        );
        if (evaluation > 0)
            ledger.Add(
                Row(Evaluation, evaluation, $"{evaluated:N0} tokens in an evaluation, beyond what training takes")
            );
        if (cuda)
        {
            ledger.Add(
                Row(
                    Fragmentation,
                    (long)(
                        GapBytes
                        + GapShare * (ledger.Sum(row => row.Bytes) - device.ContextBytes)
                        + (qlora ? GapOfQuantized * weightBytes : 0)
                    ),
                    $"libraries' workspaces, {GapBytes / 1e6:N0} MB; what the allocator rounds up and what lies "
                        + $"free between, {GapShare:P1} of the rows above"
                        + $"{(qlora ? $" and {GapOfQuantized:P0} of the 4-bit weights" : "")}"
                )
            );
        }
        if (away > 0)
            ledger.Add(Row(HostActivations, away, $"of {spec.Layers - 1} layers, {tokens:N0} tokens", "host"));
        if (rung.OffloadOptimizer)
            ledger.Add(Row(HostOptimizer, 12 * count, $"{count:N0} × (value + 2 moments) × 4 B", "host"));
        var beside = ledger.Where(row => row.Place == "host").Sum(row => row.Bytes) + (cuda ? StagingBytes : 0);
        var spills = streamed > 0 && (!cuda || !FitsInto(beside + streamed, device.HostBytes));
        if (streamed > 0)
            ledger.Add(
                Row(HostWeights, streamed, $"{rung.StreamLayers} layers × {layerBytes:N0} B", spills ? "disk" : "host")
            );
        if (cuda)
            ledger.Add(Row(Staging, StagingBytes, "pinned, between files and device", "host"));
        var plan = new MemoryPlan(ledger, rung, true)
        {
            Trained = count,
            Streamed = streamed,
            Spills = spills,
            KeptOnHost = away,
        };
        var hostFits = FitsInto(plan.HostBytes, device.HostBytes);
        return plan with { HostFits = hostFits, Fits = hostFits && FitsInto(plan.PeakBytes, Budget(config, device)) };
    }

    /// <summary>Pinned buffers that weights pass through, and those of a file that layers are streamed from.</summary>
    public const long StagingBytes = 128 << 20;

    /// <summary>Device bytes that a run may take.</summary>
    public static long? Budget(RunConfig config, PlanDevice device) =>
        config.Memory.BudgetGiB is { } gib
            ? Math.Min((long)(gib * (1L << 30)), device.FreeBytes ?? long.MaxValue)
            : device.FreeBytes;

    /// <summary>Codes, block scales and, under double quantization, 8-bit scales with an fp32 scale for each
    /// 256.</summary>
    internal static long Quantized(long weights, bool doubleQuant)
    {
        var blocks = (weights + 63) / 64;
        return (weights + 1) / 2 + (doubleQuant ? blocks + 4 * ((blocks + 255) / 256) + 4 : 4 * blocks);
    }

    /// <summary>Positions whose logits are there at once, for a vocabulary and bytes of a logit: few enough to be
    /// small, enough that the head's weight is not read too often.</summary>
    public static long ChunkRows(long vocabulary, long bytes)
    {
        var rows = Math.Max(1, (256L << 20) / (bytes * vocabulary));
        return rows > 128 ? rows / 128 * 128 : rows;
    }

    private long On(string place) => Rows.Where(row => row.Place == place).Sum(row => row.Bytes);

    /// <summary>Bytes that one layer saves for backward, without its input.</summary>
    private static long LayerBytes(ModelSpec spec, long tokens, PlanDevice device, AdapterConfig adapter)
    {
        long c = device.ComputeBytes,
            h = spec.HiddenSize,
            q = (long)spec.Heads * spec.HeadDim,
            kv = (long)spec.KvHeads * spec.HeadDim,
            m = spec.IntermediateSize;
        // Two norms and a number a row each; the norms of q and k likewise.
        var norms =
            2 * tokens * (h * c + 4) + (spec.QkNorm ? tokens * ((q + kv) * c + 4L * (spec.Heads + spec.KvHeads)) : 0);
        // q, k, v, what attention gave, its sums; the general operator repeats keys and values to all heads and copies
        // its result.
        var attention =
            tokens * ((q + 2 * kv) * c + q * c + 4L * spec.Heads)
            + (device.FusedAttention ? 0 : tokens * q * c * (spec.Heads == spec.KvHeads ? 1 : 3));
        var feed = 2 * tokens * m * c + tokens * h * c; // gate and up; the sum before them
        var low = spec.LayerLinears(0)
            .Where(l => adapter.Targets.Cover(l.Name))
            .Sum(l => tokens * c * (adapter.RankOf(l.Name) + (adapter.Dropout > 0 ? l.In : 0)));
        return norms + attention + feed + low;
    }
}
