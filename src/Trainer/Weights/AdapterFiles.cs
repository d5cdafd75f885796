using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Hub;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>PEFT's adapter folder: adapter_config.json and adapter_model.safetensors.</summary>
public static class AdapterFiles
{
    private const string Prefix = "base_model.model.";

    private static readonly JsonSerializerOptions indented = new() { WriteIndented = true };

    /// <summary>Writes the adapter of a model into an existing folder. The bytes depend on the weights and settings alone.</summary>
    public static void Save(string folder, Decoder model, double alpha, bool rslora, double dropout, BiasMode biases, string? baseModel)
    {
        var linears = model.Linears().Select(slot => slot.Linear).ToList();
        var loras = linears.OfType<LoraLinear>().ToList();
        var tensors = new List<(string, Tensor)>();
        foreach (var lora in loras)
        {
            tensors.Add((Prefix + lora.lora_A.Name, lora.lora_A.Value));
            tensors.Add((Prefix + lora.lora_B.Name, lora.lora_B.Value));
        }
        var biased = biases switch { BiasMode.All => linears, BiasMode.LoraOnly => linears.Where(l => l is LoraLinear), _ => [] };
        tensors.AddRange(biased.Where(linear => linear.bias is not null).Select(linear => (Prefix + linear.bias!.Name, linear.bias.Value)));
        tensors.Sort((a, b) => string.CompareOrdinal(a.Item1, b.Item1));
        SafeTensors.Write(Path.Combine(folder, "adapter_model.safetensors"), tensors, new Dictionary<string, string> { ["format"] = "pt" });

        // The most frequent rank and alpha are the folder's; modules that differ are listed as patterns.
        static double Alpha(LoraLinear lora, bool rslora) => lora.Scale * (rslora ? Math.Sqrt(lora.Rank) : lora.Rank);
        var rank = loras.GroupBy(lora => lora.Rank).MaxBy(group => group.Count())?.Key ?? 1;
        var config = new JsonObject
        {
            ["alpha_pattern"] = new JsonObject(loras.Where(lora => Math.Abs(Alpha(lora, rslora) - alpha) > 1e-9 * alpha)
                .Select(lora => KeyValuePair.Create(lora.Name, Number(Alpha(lora, rslora))))),
            ["auto_mapping"] = null,
            ["base_model_name_or_path"] = baseModel is null ? null : ModelSource.Public(baseModel),
            ["bias"] = biases switch { BiasMode.All => "all", BiasMode.LoraOnly => "lora_only", _ => "none" },
            ["fan_in_fan_out"] = false,
            ["inference_mode"] = true,
            ["init_lora_weights"] = true,
            ["layers_pattern"] = null,
            ["layers_to_transform"] = null,
            ["lora_alpha"] = Number(alpha),
            ["lora_bias"] = false,
            ["lora_dropout"] = dropout,
            ["modules_to_save"] = null,
            ["peft_type"] = "LORA",
            ["r"] = rank,
            ["rank_pattern"] = new JsonObject(loras.Where(lora => lora.Rank != rank).Select(lora => KeyValuePair.Create(lora.Name, (JsonNode?)lora.Rank))),
            ["revision"] = null,
            ["target_modules"] = new JsonArray([.. TargetNames(linears).Select(name => (JsonNode)name)]),
            ["task_type"] = "CAUSAL_LM",
            ["use_dora"] = false,
            ["use_rslora"] = rslora,
        };
        using var stream = new FileStream(Path.Combine(folder, "adapter_config.json"), FileMode.Create);
        stream.Write(JsonSerializer.SerializeToUtf8Bytes(config, indented));
        stream.Flush(flushToDisk: true);

        static JsonNode? Number(double value) => value == Math.Floor(value) && Math.Abs(value) < 1e9 ? (JsonNode)(long)value : value;
    }

    /// <summary>What an adapter folder says, without its weights.</summary>
    public sealed record AdapterInfo(int Rank, double Alpha, bool Rslora, double Dropout, BiasMode Biases);

    /// <summary>The folder, if both files are in it.</summary>
    public static string Check(string folder)
    {
        foreach (var file in new[] { "adapter_config.json", "adapter_model.safetensors" })
        {
            if (!File.Exists(Path.Combine(folder, file)))
                throw new UserFault($"{folder} is not an adapter folder.", found: $"no {file}", next: "name the folder that holds adapter_config.json and adapter_model.safetensors");
        }
        return folder;
    }

    /// <summary>Attaches a saved adapter to a model. What would change its meaning and is not known here is refused by name.</summary>
    public static AdapterInfo Load(string folder, Decoder model, double? dropout = null)
    {
        var configFile = Path.Combine(Check(folder), "adapter_config.json");
        JsonNode config;
        AdapterInfo info;
        try
        {
            config = JsonNode.Parse(File.ReadAllText(configFile))!;
            info = new((int)config["r"]!, (double)config["lora_alpha"]!, (bool?)config["use_rslora"] ?? false, dropout ?? (double?)config["lora_dropout"] ?? 0,
                (string?)config["bias"] switch { null or "none" => BiasMode.None, "all" => BiasMode.All, "lora_only" => BiasMode.LoraOnly, var other => throw new FormatException($"bias \"{other}\"") });
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or NullReferenceException or FormatException)
        {
            throw new UserFault($"{configFile} cannot be read.", found: e.Message, inner: e);
        }
        foreach (var (key, value) in config.AsObject())
        {
            var idle = value is null or JsonObject { Count: 0 } or JsonArray { Count: 0 } || value is JsonValue v && v.TryGetValue<bool>(out var on) && !on;
            if (!idle && Refused.Contains(key) || key == "peft_type" && (string?)value != "LORA")
                throw new UserFault($"{configFile}: {key} is not supported.", found: value!.ToJsonString());
        }
        using var scope = NewDisposeScope();
        using var file = SafeTensors.Open(Path.Combine(folder, "adapter_model.safetensors"));
        var pairs = new Dictionary<string, (string A, string B)>();
        var biases = new List<string>();
        var unknown = new List<string>();
        foreach (var key in file.Tensors.Keys)
        {
            var name = key.StartsWith(Prefix, StringComparison.Ordinal) ? key[Prefix.Length..] : key;
            if (name.EndsWith(".lora_A.weight", StringComparison.Ordinal))
                pairs[name[..^".lora_A.weight".Length]] = (key, key.Replace(".lora_A.", ".lora_B."));
            else if (name.EndsWith(".bias", StringComparison.Ordinal))
                biases.Add(key);
            else if (!name.EndsWith(".lora_B.weight", StringComparison.Ordinal))
                unknown.Add(key);
        }
        var linears = model.Linears().ToDictionary(slot => slot.Linear.Name, slot => slot.Linear);
        unknown.AddRange(pairs.Where(pair => !linears.ContainsKey(pair.Key)).Select(pair => pair.Value.A));
        unknown.AddRange(pairs.Values.Where(pair => !file.Tensors.ContainsKey(pair.B)).Select(pair => pair.B + " (missing)"));
        foreach (var (module, pair) in pairs)
        {
            if (!linears.TryGetValue(module, out var linear) || !file.Tensors.TryGetValue(pair.B, out var b))
                continue;
            var a = file.Tensors[pair.A];
            if (a.Shape.Length != 2 || b.Shape.Length != 2 || a.Shape[1] != linear.In || b.Shape[0] != linear.Out || a.Shape[0] != b.Shape[1])
                unknown.Add($"{module} (A [{string.Join(", ", a.Shape)}] and B [{string.Join(", ", b.Shape)}] for a linear of {linear.In} → {linear.Out})");
        }
        if (unknown.Count > 0 || pairs.Count == 0)
            throw new UserFault($"The adapter in {folder} does not fit the model.", found: unknown.Count > 0 ? string.Join("; ", unknown.Take(8)) : "no lora_A tensors", next: "use the base model that it was trained on");

        var alphas = config["alpha_pattern"] as JsonObject;
        using var generator = new Generator(0);
        AdapterPass.Attach(model, module =>
        {
            if (!pairs.TryGetValue(module, out var pair))
                return null;
            var (a, b) = (file.Read(pair.A), file.Read(pair.B));
            var rank = (int)a.shape[0];
            var alpha = alphas?.Where(p => Regex.IsMatch(module, $@"(.*\.)?({p.Key})$")).Select(p => (double?)(double)p.Value!).FirstOrDefault() ?? info.Alpha;
            return new ModuleAdapter(rank, alpha / (info.Rslora ? Math.Sqrt(rank) : rank), a, b);
        }, info.Dropout, generator);
        foreach (var key in biases)
        {
            var module = key[(key.StartsWith(Prefix, StringComparison.Ordinal) ? Prefix.Length : 0)..^".bias".Length].Replace(".base_layer", "");
            var bias = linears.GetValueOrDefault(module)?.bias
                ?? throw new UserFault($"The adapter in {folder} has a bias for {module}, which has none in the model.");
            using var _ = no_grad();
            bias.Value.copy_(file.Read(key));
        }
        return info;
    }

    // Settings of PEFT that change what the weights mean.
    private static readonly HashSet<string> Refused = ["use_dora", "fan_in_fan_out", "modules_to_save", "layer_replication", "lora_bias", "trainable_token_indices", "target_parameters", "use_qalora", "use_bdlora", "alora_invocation_tokens"];

    /// <summary>Short names where every module of that name is adapted, full names otherwise.</summary>
    private static IEnumerable<string> TargetNames(IReadOnlyList<Linear> linears)
    {
        static string Leaf(string name) => name[(name.LastIndexOf('.') + 1)..];
        return linears.GroupBy(linear => Leaf(linear.Name))
            .SelectMany(group => group.All(linear => linear is LoraLinear) ? [group.Key] : group.Where(linear => linear is LoraLinear).Select(linear => linear.Name))
            .Order(StringComparer.Ordinal);
    }
}
