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
/// <param name="gradient">The gradient of the trained weights; null where nothing is trained.</param>
internal sealed class MemorySettings(
    Decoder model,
    Action offloadOptimizer,
    Meter meter,
    LayerStream? stream,
    Func<LayerStream> newStream,
    IGradientReduction? gradient = null
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
        model.RunLayer = gradient?.Around(run) ?? run;
        model.Collectives = new PassCollectives(model, rung, stream, gradient);
    }

    /// <summary>Adds the bytes of what streams and of what it keeps on the host.</summary>
    public void Measure(MeasuredRows rows)
    {
        rows.Add(MemoryPlan.HostActivations, offload?.PeakBytes ?? 0);
        if (stream is null)
            return;
        rows.Add(MemoryPlan.Slots, stream.SlotBytes);
        if (stream.HoldsTrained)
        {
            rows.Add(MemoryPlan.TrainedWeights, stream.Bytes);
            return;
        }
        rows.Add(stream.OnDevice ? MemoryPlan.Weights : MemoryPlan.HostWeights, stream.Bytes);
        rows.Add(MemoryPlan.Weights, -stream.ViewBytes); // views of the slots
    }

    public void Dispose()
    {
        offload?.Dispose();
        stream?.Dispose();
    }
}
