using Memopt.Trainer.Config;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Plan;

/// <summary>What a rung costs in time: enough to put rungs in order, not to tell the time.</summary>
internal static class CostModel
{
    // A card of 200 TFLOP/s behind a bus of 20 GB/s: between a desktop's and a server's. A CPU, and a disk from which
    // it streams.
    private const double GpuRate = 2e14,
        BusRate = 2e10,
        CpuRate = 1e11,
        DiskRate = 1e9;

    // A micro-batch costs what so many more tokens would: weights are read once, kernels are started (measured: 7B at
    // 2,048 and 8,192 tokens).
    private const double GpuOverhead = 400,
        CpuOverhead = 8;

    // 4-bit weights are expanded before each product (measured: 0.98 of LoRA's speed).
    private const double Expanding = 1 / 0.98;

    /// <summary>Seconds a token.</summary>
    /// <param name="spec">The model.</param>
    /// <param name="kind">What is trained.</param>
    /// <param name="plan">The rung and its rows.</param>
    /// <param name="device">The device.</param>
    /// <param name="length">Tokens of a sequence.</param>
    /// <param name="batch">Sequences of an optimizer step.</param>
    public static double Seconds(
        ModelSpec spec,
        AdapterKind kind,
        MemoryPlan plan,
        PlanDevice device,
        int length,
        int batch
    )
    {
        var (rung, cuda) = (plan.Rung, device.Kind == "cuda");
        var tokens = (double)rung.MicroBatch * length / device.ContextRanks;
        var computing =
            Flops(spec, kind, rung, length)
            / (cuda ? GpuRate : CpuRate)
            * (1 + (cuda ? GpuOverhead : CpuOverhead) / tokens)
            * (kind == AdapterKind.Qlora ? Expanding : 1);
        // A stage waits while the first micro-batches come and the last leave.
        var steps = device.MicroBatches(batch, rung.MicroBatch);
        computing *= (steps + device.Stages - 1.0) / steps;
        // Copies run beside the computation, each way; the optimizer's do not.
        var moving =
            2.0
            * ((rung.OffloadActivations ? plan.KeptOnHost : 0) + plan.Streamed)
            / tokens
            / (cuda && !plan.Spills ? BusRate : DiskRate);
        // The ranks gather while nothing is computed.
        var gathering = 2.0 * plan.Gathered / tokens / (cuda ? BusRate : DiskRate);
        var stepping = rung.OffloadOptimizer ? 12.0 * plan.Trained / BusRate / ((double)batch * length) : 0;
        return Math.Max(computing, moving) + gathering + stepping + 0.02 * Math.Min(computing, moving);
    }

    /// <summary>Arithmetic of one token in forward, recomputation and backward.</summary>
    public static double Flops(ModelSpec spec, AdapterKind kind, Rung rung, int length)
    {
        // The last layer runs once: its backward comes next.
        var again = rung.Recompute
            ? spec.Blocks.Take(spec.Layers - 1).Sum(layer => layer.RecomputedFlops(length, rung.Keeps))
            : 0;
        return spec.Blocks.Sum(layer => Flops(layer, kind, length)) + HeadFlops(spec, kind) + again;
    }

    /// <summary>Arithmetic of one token in forward and backward of a layer.</summary>
    public static double Flops(LayerSpec layer, AdapterKind kind, int length) =>
        layer.Flops(length) + (kind == AdapterKind.None ? 2 * layer.Linears.Sum(linear => (double)linear.Weights) : 0);

    /// <summary>Arithmetic of one token in forward and backward of the head.</summary>
    public static double HeadFlops(ModelSpec spec, AdapterKind kind) =>
        (kind == AdapterKind.None ? 6 : 4) * (double)spec.Head.Weights;
}
