using Memopt.Tracking;

namespace Memopt.Trainer.Plan;

/// <summary>What a plan is made for.</summary>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="FreeBytes">Bytes that may be used, or null when unknown.</param>
/// <param name="ComputeBytes">Bytes of a number in the compute type: 4 or 2.</param>
public sealed record PlanDevice(string Kind, long? FreeBytes, int ComputeBytes);

/// <summary>
/// Bytes that training will need, row by row, from config.json and the settings alone; and the settings that fit. Every row is counted
/// from what the parts in Models/ keep, none from a multiplier.
/// </summary>
public sealed record MemoryPlan(IReadOnlyList<LedgerRow> Rows, bool Recompute, int MicroBatch, bool Fits)
{
    /// <summary>Rows' names, shared with the meter.</summary>
    public const string Weights = "weights", Adapters = "adapters", Gradients = "gradients", Optimizer = "optimizer", Activations = "activations", WorkingSet = "working set";

    public long PeakBytes => Rows.Sum(row => row.Bytes);

    /// <summary>The fastest settings that fit: everything kept, else recomputation, else a smaller micro-batch. Settings that were written are kept as written.</summary>
    /// <param name="config">The run's settings.</param>
    /// <param name="spec">The model.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="longest">Tokens of the longest sequence.</param>
    /// <param name="trained">Whether a module's linear gets an adapter.</param>
    public static MemoryPlan For(RunConfig config, ModelSpec spec, PlanDevice device, int longest, Func<string, bool> trained)
    {
        var budget = config.Memory.BudgetGiB is { } gib ? (long)(gib * (1L << 30)) : device.FreeBytes;
        var batches = config.Train.MicroBatch is { } fixedBatch ? [fixedBatch]
            : Enumerable.Range(1, config.Train.BatchSize).Where(size => config.Train.BatchSize % size == 0).Reverse().ToArray();
        if (config.Memory.Strategy == MemoryStrategy.Manual)
            return Count(config, spec, device, longest, trained, config.Memory.Recompute ?? false, batches[0], budget);
        bool[] choices = config.Memory.Recompute is { } written ? [written] : [false, true];
        MemoryPlan? last = null;
        foreach (var micro in batches)
        {
            foreach (var recompute in choices)
            {
                last = Count(config, spec, device, longest, trained, recompute, micro, budget);
                if (last.Fits)
                    return last;
            }
        }
        return last!;
    }

    private static MemoryPlan Count(RunConfig config, ModelSpec spec, PlanDevice device, int longest, Func<string, bool> trained, bool recompute, int micro, long? budget)
    {
        var c = device.ComputeBytes;
        var (linears, qlora, full) = (spec.Linears, config.Adapter.Kind == AdapterKind.Qlora, config.Adapter.Kind == AdapterKind.None);
        var linearWeights = linears.Sum(l => l.In * l.Out);
        var others = spec.Parameters - linearWeights;
        var weightBytes = full ? 0 : others * c + (qlora ? linears.Sum(l => Quantized(l.In * l.Out, config.Quantization.DoubleQuant)) : linearWeights * c);
        var adapted = full ? [] : linears.Where(l => trained(l.Name)).ToList();
        var rank = config.Adapter.Rank;
        int RankOf(string module) => config.Adapter.RankPattern.Where(pair => module == pair.Key || module.EndsWith("." + pair.Key, StringComparison.Ordinal))
            .Select(pair => pair.Value).DefaultIfEmpty(rank).First();
        var biased = config.Adapter.Biases switch { BiasMode.All => linears, BiasMode.LoraOnly => adapted, _ => [] };
        var count = full ? spec.Parameters : adapted.Sum(l => RankOf(l.Name) * (l.In + l.Out)) + biased.Where(l => l.HasBias).Sum(l => l.Out);

        var tokens = (long)micro * longest;
        var layer = LayerBytes(spec, tokens, c, rank, trained, config.Adapter.Dropout > 0);
        var input = tokens * spec.HiddenSize * c;
        var activations = spec.Layers * (recompute ? input : layer) + 2 * input;

        var rows = Math.Min(tokens, Math.Max(1, (64L << 20) / (4L * spec.VocabSize)));
        var head = rows * spec.VocabSize * (c + 4 + 4) + 2 * tokens * spec.HiddenSize * c;
        var widest = linears.Max(l => l.In * l.Out);
        var expanded = qlora ? widest * (4 + 4 + c) : full && c < 4 ? widest * c : 0;
        var working = Math.Max(head, (recompute ? layer : 0) + expanded + 4 * tokens * spec.IntermediateSize * c);

        LedgerRow Row(string name, long bytes, string why) => new(name, bytes, "device", why);
        var ledger = new List<LedgerRow>
        {
            Row(Weights, weightBytes, full ? "all weights are trained: see adapters"
                : $"{others:N0} × {c} B" + (qlora ? $" + {linearWeights:N0} × {(config.Quantization.DoubleQuant ? "4.127" : "4.5")} bit" : $" + {linearWeights:N0} × {c} B")),
            Row(Adapters, count * 4, full ? $"{count:N0} trained weights × 4 B" : $"{adapted.Count} modules, rank {rank}: {count:N0} × 4 B"),
            Row(Gradients, count * 4, $"{count:N0} × 4 B"),
            Row(Optimizer, count * 8, $"{count:N0} × 2 moments × 4 B"),
            Row(Activations, activations, recompute
                ? $"{spec.Layers} layer inputs of {tokens:N0} tokens × {spec.HiddenSize} × {c} B"
                : $"{spec.Layers} layers × {layer:N0} B for {tokens:N0} tokens"),
            Row(WorkingSet, working, head >= working ? $"logits of {rows:N0} tokens × {spec.VocabSize} ({c} + 4 + 4 B)"
                : (recompute ? "one layer run again" : "gradients inside one layer") + (expanded > 0 ? " and one expanded weight" : "")),
        };
        return new(ledger, recompute, micro, budget is null || ledger.Sum(row => row.Bytes) <= budget);
    }

    /// <summary>Codes, block scales and, under double quantization, 8-bit scales with an fp32 scale for each 256.</summary>
    internal static long Quantized(long weights, bool doubleQuant)
    {
        var blocks = (weights + 63) / 64;
        return (weights + 1) / 2 + (doubleQuant ? blocks + 4 * ((blocks + 255) / 256) + 4 : 4 * blocks);
    }

    /// <summary>What one layer keeps between its way out and its way back.</summary>
    private static long LayerBytes(ModelSpec spec, long tokens, int c, int rank, Func<string, bool> trained, bool dropout)
    {
        long h = spec.HiddenSize, q = (long)spec.Heads * spec.HeadDim, kv = (long)spec.KvHeads * spec.HeadDim, m = spec.IntermediateSize;
        // Two norms: output and, for the gradient, the input widened to fp32 twice.
        var norms = 2 * tokens * h * (c + (c < 4 ? 8 : 4)) + (spec.QkNorm ? tokens * (q + kv) * (c + 4) : 0);
        // Projections, turned q and k, keys and values repeated to all heads, output, its transpose, log-sum-exp.
        var repeated = spec.Heads == spec.KvHeads ? 0 : 2 * tokens * q * c;
        var attention = tokens * (q + 2 * kv) * c + tokens * (q + kv) * c + repeated + 2 * tokens * q * c + tokens * spec.Heads * 4;
        var feed = tokens * m * c * (2 + 1 + 1) + 2 * tokens * h * c;           // gate, up, act(gate), product; both outputs
        var residuals = 2 * tokens * h * c;
        var low = spec.LayerLinears(0).Where(l => trained(l.Name)).Sum(l => tokens * rank * c + (dropout ? tokens * l.In * c : 0));
        return norms + attention + feed + residuals + low;
    }
}
