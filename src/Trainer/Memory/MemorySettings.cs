using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>Applies rungs to a loaded model, each from the rung that was applied before. What was offloaded to the host
/// stays there.</summary>
/// <param name="model">The model.</param>
/// <param name="offloadOptimizer">Offloads trained weights and moments to the host; a second call finishes a first that
/// ran out of memory.</param>
/// <param name="meter">Read where forward and backward of a layer end.</param>
/// <param name="stream">The stream of layers that exists already; null where there is none.</param>
/// <param name="newStream">Makes the stream when a rung first asks for one.</param>
/// <param name="gradient">Makes a layer's gradient ready for its backward; null where it always is.</param>
/// <param name="sumAbove">Takes part in the sums of the gradients of the layers above one, without computing; null
/// where there are none in a pass.</param>
internal sealed class MemorySettings(
    Decoder model,
    Action offloadOptimizer,
    Meter meter,
    LayerStream? stream,
    Func<LayerStream> newStream,
    Func<LayerForward, LayerForward>? gradient = null,
    Action<int>? sumAbove = null
) : IDisposable
{
    private LayerStream? stream = stream;
    private ActivationOffload? offload;

    /// <summary>Applies a rung; after an exception for want of memory it may be called again with another.</summary>
    public void Apply(Rung rung)
    {
        // Until all of it is applied, layers run as they are: no pass holds what another has given up.
        model.RunLayer = DecoderLayer.Plain;
        if (rung.StreamLayers > 0)
            (stream ??= newStream()).Extend(model, rung.StreamLayers);
        if (rung.OffloadOptimizer)
            offloadOptimizer();
        if (rung.Recompute && rung.OffloadActivations)
            offload ??= new();
        var run = LayerRunner.Compose(model, rung, rung.OffloadActivations ? offload : null, stream, meter);
        model.RunLayer = gradient?.Invoke(run) ?? run;
        model.Collectives =
            model.ContextParallel is { } ranks
                ? new ContextCollectives(model, ranks, rung, stream, sumAbove ?? (_ => { }))
            : stream is null ? NoCollectives.Instance
            : stream;
    }

    /// <summary>Adds the bytes of what streams and of what it keeps on the host.</summary>
    public void Measure(MeasuredRows rows)
    {
        rows.Add(MemoryPlan.HostActivations, offload?.PeakBytes ?? 0);
        rows.Add(stream is { OnDevice: true } ? MemoryPlan.Weights : MemoryPlan.HostWeights, stream?.Bytes ?? 0);
        rows.Add(MemoryPlan.Slots, stream?.SlotBytes ?? 0);
        rows.Add(MemoryPlan.Weights, -stream?.ViewBytes ?? 0); // views of the slots
    }

    public void Dispose()
    {
        offload?.Dispose();
        stream?.Dispose();
    }
}
