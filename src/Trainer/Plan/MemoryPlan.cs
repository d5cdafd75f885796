using Memopt.Tracking;

namespace Memopt.Trainer.Plan;

/// <summary>What a plan is made for.</summary>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="FreeBytes">Bytes that may be used, or null when unknown.</param>
/// <param name="ComputeBytes">Bytes of a number in the compute type: 4 or 2.</param>
/// <param name="ContextBytes">What CUDA and libtorch's libraries take before anything is loaded; 0 when <paramref name="FreeBytes"/> is what they left.</param>
public sealed record PlanDevice(string Kind, long? FreeBytes, int ComputeBytes, long ContextBytes = 0)
{
    /// <summary>Whether attention is the fused kernels', which keep less: in 16 bits from compute capability 8.0 on.</summary>
    public bool FusedAttention { get; init; }

    /// <summary>A card of which nothing is in use yet. The context is that of an H200 under libtorch 2.11; other cards' are smaller.</summary>
    public static PlanDevice Of(Gpu gpu, DType type = DType.Auto) => new("cuda", gpu.Bytes, type == DType.Float32 ? 4 : 2, 871_170_048) { FusedAttention = gpu.Bf16 && type != DType.Float32 };
}

/// <summary>
/// Bytes that training will need, row by row, from config.json and the settings alone; and the settings that fit. Every row but the last is
/// counted from what the parts in Models/ keep.
/// </summary>
public sealed record MemoryPlan(IReadOnlyList<LedgerRow> Rows, bool Recompute, Kept Keeps, int MicroBatch, bool Fits)
{
    /// <summary>Rows' names, shared with the meter.</summary>
    public const string Weights = "weights", Adapters = "adapters", Gradients = "gradients", Optimizer = "optimizer", Activations = "activations", WorkingSet = "working set", Gaps = "rounding and gaps", Context = "CUDA context";

    // What the allocator held beyond the other rows, at most, in bench/RESULTS.md; a share of them all.
    private const double GapShare = 0.07;

    public long PeakBytes => Rows.Sum(row => row.Bytes);

    /// <summary>The fastest settings that fit: everything kept, else recomputation, else a smaller micro-batch. Settings that were written are kept as written.</summary>
    /// <param name="config">The run's settings.</param>
    /// <param name="spec">The model.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="longest">Tokens of the longest sequence.</param>
    public static MemoryPlan For(RunConfig config, ModelSpec spec, PlanDevice device, int longest)
    {
        var budget = config.Memory.BudgetGiB is { } gib ? (long)(gib * (1L << 30)) : device.FreeBytes;
        var batches = config.Train.MicroBatch is { } fixedBatch ? [fixedBatch]
            : Enumerable.Range(1, config.Train.BatchSize).Where(size => config.Train.BatchSize % size == 0).Reverse().ToArray();
        if (config.Memory.Strategy == MemoryStrategy.Manual)
            return Count(config, spec, device, longest, config.Memory.Recompute ?? false, config.Memory.Keep ?? Kept.Nothing, batches[0], budget);
        // From the fastest down: everything kept, less and less kept over recomputation, then smaller micro-batches. The fused kernels keep attention's result, the general operator does not.
        Kept[] keeps = config.Memory.Keep is { } keep ? [keep] : device.FusedAttention ? [Kept.Both, Kept.Attention, Kept.Nothing] : [Kept.Nothing];
        (bool Recompute, Kept Keeps)[] choices = [.. new[] { (false, Kept.Nothing) }.Concat(keeps.Select(kept => (true, kept))).Where(choice => choice.Item1 == (config.Memory.Recompute ?? choice.Item1))];
        MemoryPlan? last = null;
        foreach (var micro in batches)
        {
            foreach (var (recompute, kept) in choices)
            {
                last = Count(config, spec, device, longest, recompute, kept, micro, budget);
                if (last.Fits)
                    return last;
            }
        }
        return last!;
    }

    internal static MemoryPlan Count(RunConfig config, ModelSpec spec, PlanDevice device, int longest, bool recompute, Kept keeps, int micro, long? budget)
    {
        var c = device.ComputeBytes;
        var (linears, qlora, full) = (spec.Linears, config.Adapter.Kind == AdapterKind.Qlora, config.Adapter.Kind == AdapterKind.None);
        var linearWeights = linears.Sum(l => l.In * l.Out);
        var others = spec.Parameters - linearWeights;
        var weightBytes = full ? 0 : others * c + (qlora ? linears.Sum(l => Quantized(l.In * l.Out, config.Quantization.DoubleQuant)) : linearWeights * c);
        var adapted = full ? [] : linears.Append(new("lm_head", spec.HiddenSize, spec.VocabSize, false)).Where(l => config.Adapter.Targets.Cover(l.Name)).ToList();
        var rank = config.Adapter.Rank;
        var biased = config.Adapter.Biases switch { BiasMode.All => linears, BiasMode.LoraOnly => adapted, _ => [] };
        var count = full ? spec.Parameters : adapted.Sum(l => config.Adapter.RankOf(l.Name) * (l.In + l.Out)) + biased.Where(l => l.HasBias).Sum(l => l.Out);

        var tokens = (long)micro * longest;
        long h = spec.HiddenSize, q = (long)spec.Heads * spec.HeadDim, m = spec.IntermediateSize;
        var layer = LayerBytes(spec, tokens, device, config.Adapter);
        var input = tokens * h * c;
        var kept = (keeps.HasFlag(Kept.Attention) && device.FusedAttention ? tokens * (q * c + spec.Heads * 4) : 0) + (keeps.HasFlag(Kept.Residual) ? input : 0);
        var activations = spec.Layers * input + (recompute ? (spec.Layers - 1) * kept + layer : spec.Layers * layer);

        // While the loss is formed: what the head was given and its gradient, and one chunk of logits. On the way back through a layer that is run
        // again, the last one having given up its own: the gradient, the layer's own, and either the gradient within the feed-forward or those of attention.
        var rows = Math.Min(tokens, ChunkRows(spec.VocabSize, c));
        var head = rows * spec.VocabSize * (c + (device.Kind == "cuda" ? 0 : 8)) + 4 * input + (full && c < 4 ? 4 * h * spec.VocabSize : 0);
        var widest = linears.Max(l => l.In * l.Out);
        var expanded = qlora ? widest * (device.Kind == "cuda" ? c : 8 + c) : full ? widest * (c < 4 ? 4 : 0) : 0;
        var attention = tokens * q * (device.FusedAttention ? 4 + 3 * c : 8L * c);
        var working = Math.Max(head, 3 * input + expanded + Math.Max(tokens * m * c + input, attention - 2 * tokens * m * c));

        LedgerRow Row(string name, long bytes, string why) => new(name, bytes, "device", why);
        var ledger = new List<LedgerRow>
        {
            Row(Weights, weightBytes, full ? "all weights are trained: see adapters"
                : $"{others:N0} × {c} B" + (qlora ? $" + {linearWeights:N0} × {(config.Quantization.DoubleQuant ? "4.127" : "4.5")} bit" : $" + {linearWeights:N0} × {c} B")),
            Row(Adapters, count * (c < 4 ? 4 + c : 4), (full ? "" : $"{adapted.Count} modules, rank {rank}: ") + $"{count:N0} trained weights × 4 B{(c < 4 ? $" and a copy in {c} B" : "")}"),
            Row(Gradients, count * 4, $"{count:N0} × 4 B"),
            Row(Optimizer, count * 8, $"{count:N0} × 2 moments × 4 B"),
            Row(Activations, activations, recompute
                ? $"{spec.Layers} layer inputs of {tokens:N0} tokens × {h} × {c} B{(kept > 0 ? $", {keeps.ToString().ToLowerInvariant()} kept beside them" : "")}, and all of one layer"
                : $"{spec.Layers} layers × {input + layer:N0} B for {tokens:N0} tokens"),
            Row(WorkingSet, working, head >= working ? $"logits of {rows:N0} tokens × {spec.VocabSize} × {c} B"
                : "gradients inside one layer" + (expanded > 0 ? qlora ? " and one expanded weight" : " and that of one weight" : "")),
        };
        if (device.ContextBytes > 0)
            ledger.Insert(0, Row(Context, device.ContextBytes, "the driver's and libtorch's own"));
        if (device.Kind == "cuda")
            ledger.Add(Row(Gaps, (long)(GapShare * (ledger.Sum(row => row.Bytes) - device.ContextBytes)), $"{GapShare:P0} of the rows above: what the allocator rounds up and what lies free between"));
        return new(ledger, recompute, recompute ? keeps : Kept.Nothing, micro, budget is null || ledger.Sum(row => row.Bytes) <= budget);
    }

    /// <summary>Codes, block scales and, under double quantization, 8-bit scales with an fp32 scale for each 256.</summary>
    internal static long Quantized(long weights, bool doubleQuant)
    {
        var blocks = (weights + 63) / 64;
        return (weights + 1) / 2 + (doubleQuant ? blocks + 4 * ((blocks + 255) / 256) + 4 : 4 * blocks);
    }

    /// <summary>Positions whose logits are there at once, for a vocabulary and bytes of a logit: few enough to be small, enough that the head's weight is not read too often.</summary>
    public static long ChunkRows(long vocabulary, long bytes)
    {
        var rows = Math.Max(1, (256L << 20) / (bytes * vocabulary));
        return rows > 128 ? rows / 128 * 128 : rows;
    }

    /// <summary>What one layer keeps between its way out and its way back, its input apart.</summary>
    private static long LayerBytes(ModelSpec spec, long tokens, PlanDevice device, AdapterConfig adapter)
    {
        long c = device.ComputeBytes, h = spec.HiddenSize, q = (long)spec.Heads * spec.HeadDim, kv = (long)spec.KvHeads * spec.HeadDim, m = spec.IntermediateSize;
        // Two norms and a number a row each; the norms of q and k likewise.
        var norms = 2 * tokens * (h * c + 4) + (spec.QkNorm ? tokens * ((q + kv) * c + 4L * (spec.Heads + spec.KvHeads)) : 0);
        // q, k, v, what attention gave, its sums; the general operator repeats keys and values to all heads and copies its result.
        var attention = tokens * ((q + 2 * kv) * c + q * c + 4L * spec.Heads) + (device.FusedAttention ? 0 : tokens * q * c * (spec.Heads == spec.KvHeads ? 1 : 3));
        var feed = 2 * tokens * m * c + tokens * h * c;                         // gate and up; the sum before them
        var low = spec.LayerLinears(0).Where(l => adapter.Targets.Cover(l.Name)).Sum(l => tokens * c * (adapter.RankOf(l.Name) + (adapter.Dropout > 0 ? l.In : 0)));
        return norms + attention + feed + low;
    }
}
