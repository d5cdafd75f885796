using System.Text.Json;
using Memopt.Core;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Config;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>PEFT's adapter folder: adapter_config.json and adapter_model.safetensors.</summary>
internal static class AdapterFiles
{
    private static readonly JsonSerializerOptions indented = new() { WriteIndented = true };

    /// <summary>Writes the adapter of a model into an existing folder. The bytes depend on the weights and settings
    /// alone.</summary>
    /// <param name="folder">Must exist.</param>
    /// <param name="model">With its adapter.</param>
    /// <param name="settings">Under which it was trained: alpha, dropout, biases and the base, which the folder
    /// names.</param>
    public static void Save(string folder, Decoder model, RunConfig settings)
    {
        var linears = model.Linears().Select(slot => slot.Linear).ToList();
        var metadata = new Dictionary<string, string>([
            KeyValuePair.Create("format", "pt"),
            BaseForm.Of(settings).Write(),
        ]);
        SafeTensors.Write(
            Path.Combine(folder, PeftAdapter.WeightsFile),
            Weights(linears, settings.Adapter.Biases),
            metadata
        );
        var config = new PeftConfigFile(settings, linears).Json();
        using var stream = new FileStream(Path.Combine(folder, PeftAdapter.ConfigFile), FileMode.Create);
        stream.Write(JsonSerializer.SerializeToUtf8Bytes(config, indented));
        stream.Flush(flushToDisk: true);
    }

    /// <summary>The pairs of all adapters and the biases that were trained, by name.</summary>
    private static List<(string, Tensor)> Weights(IReadOnlyList<Linear> linears, BiasMode biases)
    {
        var tensors = new List<(string, Tensor)>();
        foreach (var lora in linears.OfType<LoraLinear>())
        {
            tensors.Add((PeftAdapter.Prefix + lora.lora_A.Name, lora.lora_A.Value));
            tensors.Add((PeftAdapter.Prefix + lora.lora_B.Name, lora.lora_B.Value));
        }
        var biased = biases switch
        {
            BiasMode.All => linears,
            BiasMode.LoraOnly => linears.Where(l => l is LoraLinear),
            _ => [],
        };
        tensors.AddRange(
            biased
                .Where(linear => linear.bias is not null)
                .Select(linear => (PeftAdapter.Prefix + linear.bias!.Name, linear.bias.Value))
        );
        tensors.Sort((a, b) => string.CompareOrdinal(a.Item1, b.Item1));
        return tensors;
    }

    /// <summary>Lays a saved adapter over a model.</summary>
    /// <param name="folder">In PEFT's layout.</param>
    /// <param name="model">The base, without an adapter.</param>
    /// <param name="dropout">In place of the adapter's own.</param>
    /// <exception cref="UserFault">It holds what is not implemented, does not fit the model, or has numbers that are
    /// not finite.</exception>
    public static PeftAdapter Load(string folder, Decoder model, double? dropout = null)
    {
        var adapter = PeftAdapter.Read(folder, model.Spec.Whole);
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var file = SafeTensors.Open(Path.Combine(folder, PeftAdapter.WeightsFile));
        Tensor Finite(string key)
        {
            var tensor = file.Read(key).to(float32);
            return tensor.isfinite().all().item<bool>()
                ? tensor
                : throw new UserFault(
                    $"The adapter in {folder} holds numbers that are not finite.",
                    found: key,
                    next: "use a checkpoint from before its training diverged"
                );
        }
        using var generator = new Generator(0);
        ModuleAdapter? Of(string module) =>
            adapter.Pairs.TryGetValue(module, out var pair)
                ? new(adapter.Config.RankOf(module), adapter.Config.ScaleOf(module), Finite(pair.A), Finite(pair.B))
                : null;
        AdapterPass.Attach(model, Of, dropout ?? adapter.Config.Dropout, generator);
        var linears = model.Linears().ToDictionary(slot => slot.Linear.Name, slot => slot.Linear);
        foreach (var (module, key) in adapter.Biases)
        {
            if (!linears.TryGetValue(module, out var linear))
                continue; // another stage of the pipeline has it
            var (bias, whole) = (linear.bias!, Finite(key));
            bias.Value.copy_(bias.Slice?.Take(whole) ?? whole);
        }
        return adapter;
    }
}
