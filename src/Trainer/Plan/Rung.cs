using Memopt.Core;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan;

/// <summary>What a run gives up for memory. Steps, losses and weights are the same on every rung, up to rounding where
/// the micro-batch differs.</summary>
/// <param name="MicroBatch">Sequences computed at once; the step adds up the rest.</param>
/// <param name="Recompute">Activation checkpointing: whether layers are run again in backward.</param>
/// <param name="Keeps">What is kept beside their inputs then.</param>
/// <param name="OffloadActivations">Whether inputs, and what is kept beside them, lie on the host meanwhile.</param>
/// <param name="OffloadOptimizer">Whether trained weights and moments do.</param>
/// <param name="StreamLayers">Layers whose frozen weights do.</param>
/// <param name="Strategy">What the ranks shard.</param>
internal sealed record Rung(
    int MicroBatch,
    bool Recompute = false,
    SavedForBackward Keeps = SavedForBackward.Nothing,
    bool OffloadActivations = false,
    bool OffloadOptimizer = false,
    int StreamLayers = 0,
    DistributedStrategy Strategy = DistributedStrategy.Ddp
)
{
    /// <summary>In words, for people.</summary>
    public override string ToString()
    {
        var kept = Keeps == SavedForBackward.Nothing ? "" : $", {Keeps.ToString().ToLowerInvariant()} kept";
        return $"micro-batch {MicroBatch}, "
            + (
                Recompute
                    ? $"activations recomputed{kept}{(OffloadActivations ? ", on the host" : "")}"
                    : "activations kept"
            )
            + (OffloadOptimizer ? ", optimizer on the host" : "")
            + (StreamLayers > 0 ? $", weights of {StreamLayers} layers streamed" : "")
            + Strategy switch
            {
                DistributedStrategy.Zero1 => ", optimizer sharded",
                DistributedStrategy.Zero2 => ", optimizer and gradients sharded",
                DistributedStrategy.Zero3 => ", optimizer and layers sharded",
                _ => "",
            };
    }

    /// <summary>Which layers of a model are streamed when so many are: spread evenly, so that each copy has the time of
    /// the layers between.</summary>
    public static IEnumerable<int> Streamed(int layers, int count) =>
        Enumerable.Range(0, layers).Where(i => (long)(i + 1) * count / layers > (long)i * count / layers);

    /// <summary>The strategies that settings allow, the first to be taken where several are as fast.</summary>
    /// <exception cref="UserFault">Shards within layers that tensor parallel ranks share.</exception>
    private static DistributedStrategy[] Strategies(RunConfig config, PlanDevice device)
    {
        if (device.Ranks == 1)
            return [DistributedStrategy.Ddp];
        if (device.TensorRanks > 1)
            return OfTensorParallel(config.Distributed);
        return config.Distributed.Strategy switch
        {
            // A stage computes forwards and backwards in turns: nothing is reduced or gathered within a micro-batch.
            DistributedStrategy.Auto when device.Stages > 1 => [DistributedStrategy.Ddp, DistributedStrategy.Zero1],
            DistributedStrategy.Auto =>
            [
                DistributedStrategy.Ddp,
                DistributedStrategy.Zero1,
                DistributedStrategy.Zero2,
                DistributedStrategy.Zero3,
            ],
            var chosen => [chosen],
        };
    }

    /// <summary>Tensor parallel ranks have their collectives within each layer: those of shards do not go between
    /// them, as in Megatron-LM.</summary>
    private static DistributedStrategy[] OfTensorParallel(DistributedConfig config) =>
        config.Strategy switch
        {
            DistributedStrategy.Auto => [DistributedStrategy.Ddp, DistributedStrategy.Zero1],
            DistributedStrategy.Zero2 or DistributedStrategy.Zero3 => throw new UserFault(
                "distributed.tensor goes with ddp and zero1.",
                found: $"distributed.strategy {EnumNames.Spelling(config.Strategy)}, distributed.tensor "
                    + $"{config.Tensor}",
                next: "set distributed.strategy to zero1"
            ),
            var chosen => [chosen],
        };

    /// <summary>Every rung that settings allow on a device, in no order.</summary>
    public static IEnumerable<Rung> All(RunConfig config, ModelSpec spec, PlanDevice device)
    {
        var memory = config.Memory;
        if (device.Kind != "cuda" && (memory.OffloadActivations == true || memory.OffloadOptimizer == true))
        {
            throw new UserFault(
                "memory.offloadActivations and memory.offloadOptimizer need a GPU: on a CPU everything is on the host.",
                found: $"device {device.Kind}",
                next: "leave them out, or use --backend cuda"
            );
        }
        var micros = config.Train.MicroBatch is { } fixedBatch
            ? [fixedBatch]
            : Enumerable
                .Range(1, Math.Max(1, config.Train.BatchSize * device.ContextRanks / device.Ranks))
                .Where(size => config.Train.BatchSize % size == 0)
                .Reverse()
                .ToArray();
        var strategies = Strategies(config, device);
        if (memory.Strategy == MemoryStrategy.Manual)
        {
            return strategies.Select(strategy => new Rung(
                micros[0],
                memory.Recompute ?? false,
                memory.Recompute == true ? memory.Keep ?? SavedForBackward.Nothing : SavedForBackward.Nothing,
                memory.OffloadActivations ?? false,
                memory.OffloadOptimizer ?? false,
                Math.Min(memory.StreamLayers ?? 0, spec.Layers),
                strategy
            ));
        }
        bool[] Either(bool? written, bool possible) =>
            written is { } value ? [value]
            : possible ? [false, true]
            : [false];
        var cuda = device.Kind == "cuda";
        // The fused kernels keep attention's result, the general operator does not.
        SavedForBackward[] keeps =
            memory.Keep is { } keep ? [keep]
            : device.FusedAttention ? [SavedForBackward.Both, SavedForBackward.Attention, SavedForBackward.Nothing]
            : [SavedForBackward.Nothing];
        int[] streams =
            memory.StreamLayers is { } layers ? [Math.Min(layers, spec.Layers)]
            : config.Adapter.Kind == AdapterKind.None ? [0]
            : [.. new[] { 0, 0.25, 0.5, 0.75, 1 }.Select(share => (int)Math.Ceiling(share * spec.Layers)).Distinct()];
        var rungs =
            from strategy in strategies
            from micro in micros
            from stream in streams
            from optimizer in Either(memory.OffloadOptimizer, cuda)
            from recompute in Either(memory.Recompute, true)
            from offload in Either(memory.OffloadActivations, cuda && recompute)
            where recompute || !offload
            // The shards of all layers lie on the device or on the host.
            where strategy != DistributedStrategy.Zero3 || stream == 0 || stream == spec.Layers
            from kept in recompute ? keeps : [SavedForBackward.Nothing]
            select new Rung(micro, recompute, kept, offload, optimizer, stream, strategy);
        return rungs;
    }
}
