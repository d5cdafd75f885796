using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>Puts rungs into effect on a model that is loaded, each from whichever was in effect before. What has gone to the host stays there.</summary>
/// <param name="model">The model.</param>
/// <param name="optimizerToHost">Moves trained weights and moments there; again to finish what lacked memory.</param>
/// <param name="meter">Read where a layer ends, out and back: peaks lie there.</param>
/// <param name="sampling">Whether it is to be read.</param>
/// <param name="stream">What streams layers already, if anything does.</param>
/// <param name="newStream">Makes it when a rung asks for the first.</param>
public sealed class MemorySettings(Decoder model, Action optimizerToHost, Meter meter, Func<bool> sampling, LayerStream? stream, Func<LayerStream> newStream) : IDisposable
{
    private LayerStream? stream = stream;
    private ActivationOffload? keeper;

    /// <summary>Applies a rung; after an exception for want of memory it may be called again with another.</summary>
    public void Apply(Rung rung)
    {
        model.RunLayer = (layer, x, context) => layer.forward(x, context);
        if (rung.StreamLayers > 0)
            (stream ??= newStream()).Extend(model, rung.StreamLayers);
        if (rung.OffloadOptimizer)
            optimizerToHost();
        if (rung.Recompute)
            Recompute.Attach(model, rung.Keeps, rung.OffloadActivations ? keeper ??= new() : null);
        stream?.Attach(model);
        Measure();
    }

    /// <summary>Adds the bytes of what streams and of what it keeps on the host.</summary>
    public void Measure(MeasuredRows rows)
    {
        rows.Add(MemoryPlan.HostActivations, keeper?.PeakBytes ?? 0);
        rows.Add(MemoryPlan.HostWeights, stream?.Bytes ?? 0);
        rows.Add(MemoryPlan.Slots, stream?.SlotBytes ?? 0);
        rows.Add(MemoryPlan.Weights, -stream?.ViewBytes ?? 0);                // views of the slots
    }

    public void Dispose()
    {
        keeper?.Dispose();
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
            return result.Backward is not { } backward ? result : new(result.Output, (gradient, accumulateInto) =>
            {
                var g = backward(gradient, accumulateInto);
                meter.Sample();
                return g;
            });
        };
    }
}
