using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan;

/// <summary>One way to train a model on a device, and how far it goes there.</summary>
/// <param name="Name">What is trained, and what is given up for memory.</param>
/// <param name="PeakBytes">On a device, with the config's length and a micro-batch of one.</param>
/// <param name="Fits">Whether that is there.</param>
/// <param name="RelativeSpeed">A device's, of LoRA with everything kept, by the arithmetic that is done and the bytes
/// that are moved.</param>
/// <param name="MaxSequence">Longest sequence that fits alone, tokens, up to the model's own limit; 0 when none
/// does.</param>
/// <param name="MaxMicroBatch">Most sequences of the config's length that fit at once; 0 when none does.</param>
/// <param name="HostBytes">On the host.</param>
/// <param name="Devices">Devices it is spread over; run uses one.</param>
internal sealed record Strategy(
    string Name,
    long PeakBytes,
    bool Fits,
    double RelativeSpeed,
    int MaxSequence,
    int MaxMicroBatch,
    long HostBytes = 0,
    int Devices = 1
);

/// <summary>The ways side by side.</summary>
internal static class Strategies
{
    private static readonly (AdapterKind Kind, string Name)[] kinds =
    [
        (AdapterKind.Lora, "LoRA"),
        (AdapterKind.Qlora, "QLoRA"),
        (AdapterKind.None, "full"),
    ];

    /// <summary>Every strategy, in the order LoRA, QLoRA, full, each from the fastest to the smallest, then those of
    /// several devices.</summary>
    /// <param name="config">Its adapter's rank and targets, and what else is not the strategy's to choose.</param>
    /// <param name="spec">The model.</param>
    /// <param name="device">Where it would run.</param>
    /// <param name="length">Tokens of a sequence.</param>
    /// <param name="devices">Devices for the strategies that spread a model over several.</param>
    public static IReadOnlyList<Strategy> Of(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int length,
        int devices = 2
    )
    {
        var plain = config with { Adapter = config.Adapter with { Kind = AdapterKind.Lora } };
        var lora = MemoryPlan.Estimate(plain, spec, device, length, new Rung(1));
        var fastest = CostModel.Seconds(spec, AdapterKind.Lora, lora, device, length, config.Train.BatchSize);
        var all = new List<Strategy>();
        foreach (var (kind, name) in kinds)
        {
            var own = config with { Adapter = config.Adapter with { Kind = kind } };
            foreach (var (suffix, rung) in Rungs(kind, spec, device))
                all.Add(One(name + suffix, own, spec, device, length, rung, fastest, plan => plan.PeakBytes, 1));
            foreach (var stage in devices > 1 && device.Kind == "cuda" ? new[] { 2, 3 } : [])
                all.Add(
                    One(
                        $"{name} + recompute, ZeRO-{stage} over {devices} GPUs",
                        own,
                        spec,
                        device,
                        length,
                        new Rung(1, Recompute: true),
                        fastest,
                        plan => Sharded(plan, spec, device, kind, stage, devices),
                        devices
                    )
                );
        }
        return all;
    }

    /// <summary>One strategy: its peak, and how far it goes.</summary>
    private static Strategy One(
        string name,
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int length,
        Rung rung,
        double fastest,
        Func<MemoryPlan, long> peak,
        int devices
    )
    {
        MemoryPlan Plan(int micro, int tokens) =>
            MemoryPlan.Estimate(config, spec, device, tokens, rung with { MicroBatch = micro });
        // The host limits a strategy of one device only: those of several divide what is there.
        bool Fits(MemoryPlan plan) =>
            devices == 1 ? plan.Fits : MemoryPlan.FitsInto(peak(plan), MemoryPlan.Budget(config, device));
        var plan = Plan(1, length);
        var seconds = CostModel.Seconds(spec, config.Adapter.Kind, plan, device, length, config.Train.BatchSize);
        return new(
            name,
            peak(plan),
            Fits(plan),
            Math.Round(fastest / seconds, 2),
            Most(spec.MaxPositions, tokens => Fits(Plan(1, tokens))),
            Most(4096, micro => Fits(Plan(micro, length))),
            plan.HostBytes,
            devices
        );
    }

    private static IEnumerable<(string Name, Rung Rung)> Rungs(AdapterKind kind, ModelSpec spec, PlanDevice device)
    {
        yield return ("", new(1));
        if (device.FusedAttention)
        {
            yield return (" + recompute, both kept", new(1, true, SavedForBackward.Both));
            yield return (" + recompute, attention kept", new(1, true, SavedForBackward.Attention));
        }
        yield return (" + recompute", new(1, true));
        if (device.Kind == "cuda")
        {
            yield return (
                " + recompute, activations offloaded",
                new(
                    1,
                    true,
                    device.FusedAttention ? SavedForBackward.Both : SavedForBackward.Nothing,
                    OffloadActivations: true
                )
            );
            yield return (" + recompute, optimizer offloaded", new(1, true, OffloadOptimizer: true));
            yield return (
                " + recompute, activations and optimizer offloaded",
                new(1, true, OffloadActivations: true, OffloadOptimizer: true)
            );
        }
        if (kind != AdapterKind.None)
            yield return (" + recompute, weights streamed", new(1, true, StreamLayers: spec.Layers));
        if (kind != AdapterKind.None && device.Kind == "cuda")
            yield return (
                " + recompute, all offloaded, weights streamed",
                new(1, true, OffloadActivations: true, OffloadOptimizer: true, StreamLayers: spec.Layers)
            );
    }

    /// <summary>A device's share of a plan under ZeRO (Rajbhandari et al. 2019, arXiv 1910.02054): stage 2 divides
    /// trained values, moments and gradients, stage 3 the weights too, of which two layers are gathered at a time.
    /// </summary>
    private static long Sharded(
        MemoryPlan plan,
        ModelSpec spec,
        PlanDevice device,
        AdapterKind kind,
        int stage,
        int devices
    )
    {
        long Row(string name) => plan.Rows.Where(row => row.Name == name).Sum(row => row.Bytes);
        var c = device.ComputeBytes;
        var copy = c < 4 ? plan.Trained * c : 0; // what products read stays whole up to stage 2
        var divided =
            Row(MemoryPlan.TrainedRow(kind))
            - copy
            + Row(MemoryPlan.Gradients)
            + Row(MemoryPlan.Optimizer)
            + (stage == 3 ? copy + Row(MemoryPlan.Weights) : 0);
        var layers = kind == AdapterKind.None ? copy : Row(MemoryPlan.Weights);
        var gathered = stage == 3 ? 2 * layers / Math.Max(1, spec.Layers) : 0;
        return plan.PeakBytes - divided + divided / devices + gathered;
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
