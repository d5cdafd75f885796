using System.Text.Json;
using Memopt.Core;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Plan;

/// <summary>Reads config.json. It refuses by name every setting that it does not know: an approximated model trains
/// something else.</summary>
internal static class ModelConfig
{
    private static readonly string[] families = ["llama", "qwen2", "qwen3", "mistral", "phi3"];
    private static readonly string[] activations = ["silu", "gelu", "gelu_pytorch_tanh", "relu"];

    // Several times what the largest known models have; within them, every count of bytes fits into 64 bits.
    private const int MostLayers = 1_000,
        MostWidth = 1 << 17,
        MostInner = 1 << 20,
        MostHeads = 4_096,
        MostWords = 1 << 24,
        MostPositions = 1 << 24;

    // Settings that would change the arithmetic in a way that is not known here, unless they have the harmless value.
    private static readonly (string Key, string Harmless)[] foreign =
    [
        ("quantization_config", "null"),
        ("attention_multiplier", "1"),
        ("residual_multiplier", "1"),
        ("embedding_multiplier", "1"),
        ("logits_scaling", "1"),
        ("attn_logit_softcapping", "null"),
        ("final_logit_softcapping", "null"),
        ("num_experts", "0"),
        ("num_local_experts", "0"),
        ("pretraining_tp", "1"),
        ("no_rope_layers", "null"),
        ("attention_chunk_size", "null"),
        ("kv_lora_rank", "null"),
        ("embd_pdrop", "0"),
        ("resid_pdrop", "0"),
    ];

    /// <summary>Reads a config.json, or the one in a folder, with the generation_config.json beside it.</summary>
    /// <exception cref="UserFault">Every problem of the file.</exception>
    public static ModelSpec Read(string path)
    {
        var file = Directory.Exists(path) ? Path.Combine(path, ModelLayout.Config) : path;
        if (!File.Exists(file))
            throw new UserFault(
                $"{file} is missing.",
                found: Directory.Exists(path) ? "the folder, without a config.json" : "no such folder",
                next: "name a folder that holds config.json and the weights"
            );
        var root = Parse(file);
        if (root.ValueKind != JsonValueKind.Object)
            throw new UserFault($"{file} is not a model's config.", found: root.ValueKind.ToString());
        var generation = Path.Combine(Path.GetDirectoryName(file)!, ModelLayout.Generation);
        var config = new ConfigJson(file, root);
        var spec = Spec(config, File.Exists(generation) ? Parse(generation) : null);
        config.Throw();
        return spec;
    }

    private static JsonElement Parse(string file)
    {
        try
        {
            var bytes = UntrustedFile.ReadAllBytes(file, UntrustedFile.Settings);
            StrictJson.Check(bytes);
            return JsonDocument.Parse(bytes).RootElement;
        }
        catch (JsonException e)
        {
            throw new UserFault($"{file} is not valid JSON.", found: e.Message, inner: e);
        }
    }

    private static ModelSpec Spec(ConfigJson config, JsonElement? generation)
    {
        var family = config.Text("model_type") ?? "";
        if (!families.Contains(family))
            throw new UserFault(
                $"{config.File}: the architecture \"{family}\" is not supported.",
                found: family,
                next: $"use a model of {string.Join(", ", families)}"
            );
        CheckForeign(config);
        var layers = 0;
        var attention = Attention(config, family, ref layers);
        var maxPositions = config.Int(
            "max_position_embeddings",
            MostPositions,
            family switch
            {
                "llama" => 2048,
                "mistral" => 131072,
                "phi3" => 4096,
                _ => 32768,
            }
        );
        var act = Activation(config);
        CheckShape(config, family, attention);
        attention = attention with { OutBias = Bias(config, family) };
        attention = attention with { QkvBias = family == "qwen2" || attention.OutBias };
        var rope = RopeConfig.Read(config, family, maxPositions, attention.HeadDim);
        var vocabulary = config.Int("vocab_size", MostWords);
        var mlp = new MlpSpec(attention.HiddenSize, config.Int("intermediate_size", MostInner), act)
        {
            Bias = family == "llama" && config.Flag("mlp_bias", false),
            FusedGateUp = family == "phi3",
        };
        var windows = WindowConfig.Read(config, family, layers);
        return new()
        {
            ModelType = family,
            VocabSize = vocabulary,
            HiddenSize = attention.HiddenSize,
            Blocks =
            [
                .. Enumerable
                    .Range(0, layers)
                    .Select(i => new LayerSpec(i, attention with { Window = windows[i] }, mlp)),
            ],
            RmsNormEps = config.Number("rms_norm_eps") ?? (family == "phi3" ? 1e-5 : 1e-6),
            TieWordEmbeddings = config.Flag("tie_word_embeddings", false),
            MaxPositions = maxPositions,
            Rope = rope,
            EosTokenIds = [.. Ids(generation, "eos_token_id").Concat(Ids(config.Root, "eos_token_id")).Distinct()],
            BosTokenId = Ids(config.Root, "bos_token_id").Select(id => (int?)id).FirstOrDefault(),
            PadTokenId = Ids(config.Root, "pad_token_id").Select(id => (int?)id).FirstOrDefault(),
            Dtype = config.Text("dtype") ?? config.Text("torch_dtype"),
        };
    }

    private static void CheckForeign(ConfigJson config)
    {
        foreach (var (key, harmless) in foreign)
        {
            if (config.Raw(key) is { } value && value != "null" && value != harmless && value != harmless + ".0")
                config.Problem(key, $"is {value}, which is not supported");
        }
    }

    private static AttentionSpec Attention(ConfigJson config, string family, ref int layers)
    {
        var (heads, hidden) = (config.Int("num_attention_heads", MostHeads), config.Int("hidden_size", MostWidth));
        layers = config.Int("num_hidden_layers", MostLayers);
        var kv =
            config.Raw("num_key_value_heads") == "null"
                ? heads
                : config.Int(
                    "num_key_value_heads",
                    MostHeads,
                    family switch
                    {
                        "mistral" => 8,
                        "qwen2" or "qwen3" => 32,
                        _ => heads,
                    }
                );
        var standard =
            family == "qwen3" ? 128
            : heads > 0 ? hidden / heads
            : 0;
        return new(hidden, heads, kv, config.Int("head_dim", MostWidth, standard))
        {
            QkNorm = family == "qwen3",
            FusedQkv = family == "phi3",
        };
    }

    private static string Activation(ConfigJson config)
    {
        var act = config.Text("hidden_act") ?? "silu";
        if (!activations.Contains(act))
            config.Problem("hidden_act", $"\"{act}\" is not supported; known: {string.Join(", ", activations)}");
        return act;
    }

    private static void CheckShape(ConfigJson config, string family, AttentionSpec attention)
    {
        var (hidden, heads, kv) = (attention.HiddenSize, attention.Heads, attention.KvHeads);
        if (config.Number("head_dim") is null && family != "qwen3" && heads > 0 && hidden % heads != 0)
            config.Problem("hidden_size", $"is {hidden}, which num_attention_heads = {heads} does not divide");
        if (config.Number("rms_norm_eps") is <= 0)
            config.Problem("rms_norm_eps", "must be above 0");
        if (
            config.Root.TryGetProperty("architectures", out var heading)
            && heading.ValueKind == JsonValueKind.Array
            && heading.EnumerateArray().Any(name => !name.ToString().EndsWith("ForCausalLM", StringComparison.Ordinal))
        )
            config.Problem("architectures", $"is {heading.GetRawText()}; only causal language models are supported");
        if (attention.QueryWidth > MostWidth)
            config.Problem(
                "head_dim",
                $"times num_attention_heads is {attention.QueryWidth:N0}, which must be at most {MostWidth:N0}"
            );
        if (heads > 0 && kv > 0 && heads % kv != 0)
            config.Problem("num_key_value_heads", $"is {kv}, which does not divide num_attention_heads = {heads}");
        if (config.Flag("scale_attn_by_inverse_layer_idx", false))
            config.Problem("scale_attn_by_inverse_layer_idx", "is not supported");
    }

    private static bool Bias(ConfigJson config, string family)
    {
        var bias = config.Flag("attention_bias", false);
        if (bias && family is "mistral" or "phi3" or "qwen2")
            config.Problem("attention_bias", $"is true, which {family} does not know");
        return bias && family is "llama" or "qwen3";
    }

    private static IEnumerable<int> Ids(JsonElement? root, string key)
    {
        if (root is not { ValueKind: JsonValueKind.Object } element || !element.TryGetProperty(key, out var value))
            return [];
        return value.ValueKind switch
        {
            JsonValueKind.Number when value.TryGetInt32(out var id) => [id],
            JsonValueKind.Array =>
            [
                .. value
                    .EnumerateArray()
                    .Where(item => item.ValueKind == JsonValueKind.Number && item.TryGetInt32(out _))
                    .Select(item => item.GetInt32()),
            ],
            _ => [],
        };
    }
}
