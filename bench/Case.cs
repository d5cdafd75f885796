using System.Text.Json;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Bench;

/// <summary>A workload of cases.json.</summary>
internal sealed record Case(
    string Name,
    string Shape,
    string Kind,
    int Rank,
    string[] Targets,
    int Batch,
    int Length,
    bool Recompute,
    string Keep,
    int Steps,
    string Group,
    bool Auto = false,
    bool Packing = false,
    bool OffloadActivations = false,
    bool OffloadOptimizer = false,
    int StreamLayers = 0,
    bool Spill = false,
    double? LeftGib = null
)
{
    public static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
    };

    /// <summary>Random tokens, each predicted.</summary>
    public MicroBatch Tokens(Random random, int vocabulary)
    {
        var ids = Enumerable.Range(0, Batch * Length).Select(_ => (long)random.Next(vocabulary)).ToArray();
        var predicting = Enumerable
            .Range(0, Batch * Length)
            .Where(i => (i + 1) % Length != 0)
            .Select(i => (long)i)
            .ToArray();
        // Packed rows: documents of a quarter of the length.
        var documents = Packing
            ? new Documents([.. Enumerable.Range(0, 4 * Batch + 1).Select(i => i * Length / 4)], Length / 4)
            : null;
        return new(
            Batch,
            Length,
            ids,
            predicting,
            Array.ConvertAll(predicting, i => ids[i + 1]),
            new int[predicting.Length],
            Packing ? [.. Enumerable.Range(0, Batch * Length).Select(i => (long)i % (Length / 4))] : null,
            documents,
            Batch * Length
        );
    }
}

/// <summary>Random weights made where they lie.</summary>
internal sealed class RandomParts(
    ModelSpec spec,
    ScalarType type,
    Device device,
    bool quantized,
    Nf4Scratch scratch,
    Action<DecoderLayer>? built = null
) : IWeightSource
{
    private readonly Dictionary<string, TensorSpec> tensors = spec.Tensors.ToDictionary(t => t.Name);

    public Parameter Weight(string name, TensorSplit? split = null, bool isPartial = false)
    {
        using var scope = NewDisposeScope();
        var shape = tensors[name].Shape;
        return new Parameter(
            name,
            shape.Length == 1
                ? name.EndsWith("bias", StringComparison.Ordinal)
                    ? zeros(shape, type, device)
                    : ones(shape, type, device)
                : randn(shape, type, device).mul_(0.02)
        );
    }

    public void OnLayerLoaded(DecoderLayer layer) => built?.Invoke(layer);

    public Linear Linear(LinearSpec linear)
    {
        var module = linear.Name;
        var bias = tensors.ContainsKey(module + ".bias") ? Weight(module + ".bias") : null;
        if (!quantized || module == "lm_head")
            return new DenseLinear(module, Weight(module + ".weight"), bias);
        using var scope = NewDisposeScope();
        var weight = randn(tensors[module + ".weight"].Shape, type, device).mul_(0.02);
        return new Nf4Linear(
            module,
            Nf4.Quantize(weight, Memopt.Trainer.Config.QuantType.Nf4, doubleQuant: true),
            bias,
            type,
            scratch
        );
    }
}
