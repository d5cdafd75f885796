using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>Loads a model's weights onto a device.</summary>
internal static class ModelLoader
{
    /// <summary>Loads a model, its frozen linears in 4 bits when the adapter is QLoRA's.</summary>
    /// <param name="folder">Of config.json and weights.</param>
    /// <param name="spec">The config.json.</param>
    /// <param name="config">Adapter and quantization.</param>
    /// <param name="type">Of the activations.</param>
    /// <param name="device">Where the weights go.</param>
    /// <param name="progress">Given tensors loaded, of how many.</param>
    /// <param name="onLayerLoaded">Given each layer once its weights are there.</param>
    /// <param name="tensor">The ranks that share the matrices; null where each has all of them.</param>
    public static Decoder Load(
        string folder,
        ModelSpec spec,
        RunConfig config,
        ScalarType type,
        Device device,
        Action<int, int>? progress = null,
        Action<DecoderLayer>? onLayerLoaded = null,
        TensorParallel? tensor = null
    )
    {
        var total = spec.Tensors.Count;
        var compute = config.Quantization.ComputeType switch
        {
            DType.Float32 => float32,
            DType.Bfloat16 => bfloat16,
            DType.Float16 => float16,
            _ => type,
        };
        using var weights = new WeightStream(
            folder,
            spec,
            type,
            device,
            new(
                type,
                module => config.Adapter.Kind == AdapterKind.Qlora && module != "lm_head",
                config.Quantization,
                compute
            ),
            progress is null ? null : new SynchronousProgress(done => progress(done, total)),
            onLayerLoaded,
            tensor
        );
        return new Decoder(spec, weights, type, device, tensor);
    }

    /// <summary>The type of a setting, or what suits the device: bf16 on a GPU that computes in it, fp16 on an older
    /// one, fp32 on a CPU.</summary>
    public static ScalarType ComputeType(DType dtype, Backend backend) =>
        dtype switch
        {
            DType.Float32 => float32,
            DType.Bfloat16 => bfloat16,
            DType.Float16 when backend.Kind == "cuda" => float16,
            DType.Float16 => throw new UserFault(
                "model.dtype float16 needs a GPU.",
                found: $"backend {backend.Kind}",
                next: "use bfloat16 or float32"
            ),
            _ => backend.Kind != "cuda" ? float32
            : Cuda.Capability() >= 80 ? bfloat16
            : float16,
        };
}
