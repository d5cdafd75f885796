using Memopt.Trainer.Autograd;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>Applies rungs to a loaded model, each from the rung that was applied before. What was offloaded to the host
/// stays there.</summary>
/// <param name="model">The model.</param>
/// <param name="optimizerToHost">Offloads trained weights and moments to the host; a second call finishes a first that
/// ran out of memory.</param>
/// <param name="meter">Read where forward and backward of a layer end: the peaks are there.</param>
/// <param name="sampling">Whether the meter is read.</param>
/// <param name="stream">The stream of layers that exists already; null where there is none.</param>
/// <param name="newStream">Makes the stream when a rung first asks for one.</param>
internal sealed class MemorySettings(
    Decoder model,
    Action optimizerToHost,
    Meter meter,
    Func<bool> sampling,
    LayerStream? stream,
    Func<LayerStream> newStream
) : IDisposable
{
    private LayerStream? stream = stream;
    private ActivationOffload? offload;

    /// <summary>Applies a rung; after an exception for want of memory it may be called again with another.</summary>
    public void Apply(Rung rung)
    {
        model.RunLayer = (layer, x, context) => layer.forward(x, context);
        if (rung.StreamLayers > 0)
            (stream ??= newStream()).Extend(model, rung.StreamLayers);
        if (rung.OffloadOptimizer)
            optimizerToHost();
        if (rung.Recompute)
            Recompute.Attach(model, rung.Keeps, rung.OffloadActivations ? offload ??= new() : null);
        stream?.Attach(model);
        Measure();
    }

    /// <summary>Adds the bytes of what streams and of what it keeps on the host.</summary>
    public void Measure(MeasuredRows rows)
    {
        rows.Add(MemoryPlan.HostActivations, offload?.PeakBytes ?? 0);
        rows.Add(MemoryPlan.HostWeights, stream?.Bytes ?? 0);
        rows.Add(MemoryPlan.Slots, stream?.SlotBytes ?? 0);
        rows.Add(MemoryPlan.Weights, -stream?.ViewBytes ?? 0); // views of the slots
    }

    public void Dispose()
    {
        offload?.Dispose();
        stream?.Dispose();
    }

    private void Measure()
    {
        var run = model.RunLayer;
        model.RunLayer = (layer, x, context) =>
        {
            var result = run(layer, x, context);
            if (!sampling() && !meter.Limited)
                return result;
            meter.Sample();
            return result.Backward is not { } backward
                ? result
                : new(
                    result.Output,
                    (gradient, accumulateInto) =>
                    {
                        var g = backward(gradient, accumulateInto);
                        meter.Sample();
                        return g;
                    }
                );
        };
    }
}
