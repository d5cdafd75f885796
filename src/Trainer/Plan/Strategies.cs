namespace Memopt.Trainer.Plan;

/// <summary>One way to train a model on a device, and how far it goes there.</summary>
/// <param name="Name">What is trained, and what is given up for memory.</param>
/// <param name="PeakBytes">With the config's length and its smallest micro-batch.</param>
/// <param name="Fits">Whether that is there.</param>
/// <param name="RelativeSpeed">Of LoRA with everything kept, by the arithmetic that is done.</param>
/// <param name="MaxSequence">Longest sequence that fits alone, tokens, up to the model's own limit; 0 when none does.</param>
/// <param name="MaxMicroBatch">Most sequences of the config's length that fit at once; 0 when none does.</param>
public sealed record Strategy(string Name, long PeakBytes, bool Fits, double RelativeSpeed, int MaxSequence, int MaxMicroBatch);

/// <summary>The ways side by side.</summary>
public static class Strategies
{
    private static readonly (AdapterKind Kind, string Name)[] kinds = [(AdapterKind.Lora, "LoRA"), (AdapterKind.Qlora, "QLoRA"), (AdapterKind.None, "full")];
    private static readonly (bool Recompute, Kept Keeps, string Name)[] memory = [(false, Kept.Nothing, ""), (true, Kept.Both, " + recompute, both kept"), (true, Kept.Attention, " + recompute, attention kept"), (true, Kept.Nothing, " + recompute")];

    /// <summary>Every strategy the tool has, in the order LoRA, QLoRA, full, each from the fastest to the smallest.</summary>
    /// <param name="config">Its adapter's rank and targets, and what else is not the strategy's to choose.</param>
    /// <param name="spec">The model.</param>
    /// <param name="device">Where it would run.</param>
    /// <param name="length">Tokens of a sequence.</param>
    public static IReadOnlyList<Strategy> Of(RunConfig config, ModelSpec spec, PlanDevice device, int length)
    {
        var all = new List<Strategy>();
        foreach (var (kind, kindName) in kinds)
        {
            foreach (var (recompute, keeps, memoryName) in memory)
            {
                var own = config with { Adapter = config.Adapter with { Kind = kind } };
                MemoryPlan Plan(int micro, int tokens) => MemoryPlan.Count(own, spec, device, tokens, recompute, keeps, micro, device.FreeBytes);
                var plan = Plan(1, length);
                all.Add(new(kindName + memoryName, plan.PeakBytes, plan.Fits, Speed(spec, kind, recompute, keeps, length),
                    Most(spec.MaxPositions, tokens => Plan(1, tokens).Fits), Most(4096, micro => Plan(micro, length).Fits)));
            }
        }
        return all;
    }

    /// <summary>Products and attention of one token, out, again and back, against those of LoRA with everything kept.</summary>
    private static double Speed(ModelSpec spec, AdapterKind kind, bool recompute, Kept keeps, int length)
    {
        double Work(AdapterKind kind, bool recompute, Kept keeps)
        {
            var layer = spec.LayerLinears(0).ToList();
            double weights = layer.Sum(l => (double)l.In * l.Out), last = (double)layer[^1].In * layer[^1].Out;
            var output = layer.Single(l => l.Name.EndsWith("o_proj", StringComparison.Ordinal));
            double head = (double)spec.HiddenSize * spec.VocabSize, attention = (double)length * spec.Heads * spec.HeadDim;   // half of 2 · T · q · 2 products, causal
            var full = kind == AdapterKind.None ? 2 * (spec.Layers * weights + head) : 0;
            var again = !recompute ? 0 : 2 * (weights - last - (keeps.HasFlag(Kept.Residual) ? (double)output.In * output.Out : 0)) + (keeps.HasFlag(Kept.Attention) ? 0 : 2 * attention);
            return spec.Layers * (4 * weights + 2 * attention + 5 * attention) + 4 * head + full + (spec.Layers - 1) * again;
        }
        // 4-bit weights are expanded before each product: 2 % of the time where it was measured.
        return Math.Round(Work(AdapterKind.Lora, false, Kept.Nothing) / Work(kind, recompute, keeps) * (kind == AdapterKind.Qlora ? 0.98 : 1), 2);
    }

    private static int Most(int limit, Func<int, bool> fits)
    {
        if (!fits(1))
            return 0;
        var (low, high) = (1, limit);
        while (low < high)
        {
            var middle = (int)(((long)low + high + 1) / 2);
            (low, high) = fits(middle) ? (middle, high) : (low, middle - 1);
        }
        return low;
    }
}
