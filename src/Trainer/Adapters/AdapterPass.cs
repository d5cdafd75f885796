using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>The LoRA of one module: its rank, scale, and optionally the values it starts from.</summary>
internal sealed record ModuleAdapter(int Rank, double Scale, Tensor? A = null, Tensor? B = null);

/// <summary>Puts LoRA pairs around a model's linears.</summary>
internal static class AdapterPass
{
    /// <summary>Attaches fresh adapters as the config says: A uniform in ±1/√in (kaiming with a = √5), B
    /// zero.</summary>
    public static IReadOnlyList<LoraLinear> Attach(Decoder model, AdapterConfig config, int seed)
    {
        using var generator = new Generator((ulong)seed);
        ModuleAdapter? Of(string module) =>
            config.Targets.Cover(module) ? new(config.RankOf(module), config.ScaleOf(module)) : null;
        return Attach(model, Of, config.Dropout, generator);
    }

    /// <summary>Attaches an adapter to every module that <paramref name="choose"/> gives one.</summary>
    public static IReadOnlyList<LoraLinear> Attach(
        Decoder model,
        Func<string, ModuleAdapter?> choose,
        double dropout,
        Generator generator
    )
    {
        using var scope = NewDisposeScope();
        var attached = new List<LoraLinear>();
        var slots = model.Linears().ToDictionary(slot => slot.Linear.Name);
        var number = -1;
        // A stage of a pipeline numbers and draws the modules of the other stages too.
        foreach (var module in model.Spec.Whole.AllLinears)
        {
            if (choose(module.Name) is not { } adapter)
                continue;
            number++;
            // Drawn on the host whatever the device, and whole whatever the ranks, so that a run starts from the same
            // values everywhere.
            var (rank, bound) = (adapter.Rank, 1 / Math.Sqrt(module.In));
            var a = adapter.A ?? rand([rank, module.In], float32, generator: generator).mul_(2 * bound).sub_(bound);
            if (!slots.TryGetValue(module.Name, out var slot))
                continue;
            var (linear, replace) = slot;
            var b = adapter.B ?? zeros([module.Out, rank], float32);
            Parameter Pair(string name, Tensor whole, int dim)
            {
                // The matrix on the divided side of W is divided alike; the other is whole, and each rank's product
                // with it is a part.
                var slice =
                    linear.Slice is not { } cut ? null
                    : cut.Dim == dim ? cut with { Shape = whole.shape }
                    : model.Tensor!.Slice(whole.shape, null, isPartial: true);
                var own = (slice?.Take(whole) ?? whole).to(float32, model.Device).contiguous();
                return new(linear.Name + name, own) { Slice = slice };
            }
            var lora = new LoraLinear(
                linear,
                Pair(".lora_A.weight", a, dim: 1),
                Pair(".lora_B.weight", b, dim: 0),
                adapter.Scale,
                dropout,
                number
            )
            {
                Slice = linear.Slice,
            };
            replace(lora);
            attached.Add(lora);
        }
        foreach (var layer in model.layers)
            layer.mlp.Fused = GatedLora.TryFuse(layer.mlp);
        return attached;
    }

    /// <summary>The parameters that a run trains, layer by layer: adapters and the biases asked for, or everything
    /// without an adapter. Those outside the layers (embeddings, last norm, head) are the last unit.</summary>
    public static IReadOnlyList<TrainedUnit> Trained(Decoder model, AdapterKind kind, BiasMode biases)
    {
        var layers = model.layers.Select(layer => Trained(layer, kind, biases));
        Linear[][] head = model.Spec.HasHead
            ?
            [
                [model.lm_head],
            ]
            : [];
        Parameter[] embeddings = model.Spec.HasEmbeddings ? [model.embed_tokens] : [];
        Parameter[] norm = model.Spec.HasHead ? [model.norm.weight] : [];
        var root = Unit(null, head, [.. embeddings, .. norm], kind, biases);
        return [.. layers.Append(root).Where(unit => unit.Parameters.Count > 0)];
    }

    /// <summary>The parameters of a layer that a run trains.</summary>
    public static TrainedUnit Trained(DecoderLayer layer, AdapterKind kind, BiasMode biases) =>
        Unit(layer.Index, layer.LinearGroups, layer.Norms.Select(norm => norm.weight), kind, biases);

    private static TrainedUnit Unit(
        int? layer,
        IEnumerable<Linear[]> groups,
        IEnumerable<Parameter> others,
        AdapterKind kind,
        BiasMode biases
    )
    {
        return new(
            layer,
            kind == AdapterKind.None
                ? [.. others.Concat(groups.SelectMany(group => group).SelectMany(l => l.Parameters)).Distinct()]
                : [.. groups.SelectMany(Pairs), .. groups.SelectMany(group => group).SelectMany(Biases)]
        );

        // The A matrices of linears with one input are adjacent: see LoraGroup.
        static IEnumerable<Parameter> Pairs(Linear[] group)
        {
            var loras = group.OfType<LoraLinear>().ToList();
            return loras.Select(lora => lora.lora_A).Concat(loras.Select(lora => lora.lora_B));
        }

        IEnumerable<Parameter> Biases(Linear linear) =>
            linear.bias is { } bias && (biases == BiasMode.All || (biases == BiasMode.LoraOnly && linear is LoraLinear))
                ? [bias]
                : [];
    }
}
