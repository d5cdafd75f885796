using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>How a decoder runs each of its layers on a rung: the memory passes, in their order.</summary>
internal static class LayerRunner
{
    /// <summary>Composes the passes from the layer outwards. Each pass sees only the function that it is put
    /// around.</summary>
    /// <param name="model">The model. Its adapters are attached and its frozen weights quantized already.</param>
    /// <param name="rung">The memory settings.</param>
    /// <param name="offload">Holds saved tensors on the host; null leaves them on the device.</param>
    /// <param name="stream">Streams the weights of some layers; null where every weight stays on the device.</param>
    /// <param name="meter">Read where forward and backward of a layer end: the peaks are there.</param>
    public static LayerForward Compose(
        Decoder model,
        Rung rung,
        ActivationOffload? offload,
        LayerStream? stream,
        Meter meter
    )
    {
        // On an earlier stage of a pipeline the backward of the last layer does not come next.
        int? last = model.Spec.Stage.IsLast ? model.layers[^1].Index : null;
        var run = rung.Recompute ? Recompute.Layers(last, rung.Keeps, offload) : DecoderLayer.Plain;
        // Outside recomputation: a layer's weights are fetched once for its second forward and its backward.
        if (stream is not null)
            run = stream.Around(run);
        return meter.Around(run);
    }
}
