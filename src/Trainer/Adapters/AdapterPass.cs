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
            // Drawn on the host whatever the device, so that a run starts from the same values everywhere.
            var bound = 1 / Math.Sqrt(module.In);
            var a =
                adapter.A ?? rand([adapter.Rank, module.In], float32, generator: generator).mul_(2 * bound).sub_(bound);
            if (!slots.TryGetValue(module.Name, out var slot))
                continue;
            var (linear, replace) = slot;
            var b = adapter.B ?? zeros([linear.OutFeatures, adapter.Rank], float32);
            var lora = new LoraLinear(
                linear,
                new Parameter(linear.Name + ".lora_A.weight", a.to(float32, model.Device).contiguous()),
                new Parameter(linear.Name + ".lora_B.weight", b.to(float32, model.Device).contiguous()),
                adapter.Scale,
                dropout,
                number
            );
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
        var layers = model.layers.Select(layer => Unit(layer.Index, layer.LinearGroups, Weights(layer.Norms)));
        var root = Unit(
            null,
            model.Spec.HasHead
                ?
                [
                    [model.lm_head],
                ]
                : [],
            [
                .. model.Spec.HasEmbeddings ? [model.embed_tokens] : Array.Empty<Parameter>(),
                .. Weights(model.Spec.HasHead ? [model.norm] : []),
            ]
        );
        return [.. layers.Append(root).Where(unit => unit.Parameters.Count > 0)];

        TrainedUnit Unit(int? layer, IEnumerable<Linear[]> groups, IEnumerable<Parameter> others) =>
            new(
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

        static IEnumerable<Parameter> Weights(IEnumerable<RmsNorm> norms) => norms.Select(norm => norm.weight);
    }
}
