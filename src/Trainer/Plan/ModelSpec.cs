using System.Globalization;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Trainer.Plan;

/// <summary>A tensor of the weights file.</summary>
internal sealed record TensorSpec(string Name, long[] Shape);

/// <summary>A linear: module name, inputs, outputs, whether it has a bias.</summary>
internal sealed record LinearSpec(string Name, long In, long Out, bool HasBias);

/// <summary>A model's architecture, from its own config.json. What it does not know it refuses by name: an
/// approximated model trains something else.
/// </summary>
internal sealed record ModelSpec
{
    public required string ModelType { get; init; }
    public required int VocabSize { get; init; }
    public required int HiddenSize { get; init; }
    public required int IntermediateSize { get; init; }
    public required int Layers { get; init; }
    public required int Heads { get; init; }
    public required int KvHeads { get; init; }
    public required int HeadDim { get; init; }
    public required double RmsNormEps { get; init; }
    public required bool TieWordEmbeddings { get; init; }
    public bool QkvBias { get; init; }
    public bool OutBias { get; init; }
    public bool MlpBias { get; init; }

    /// <summary>Norms over each head of q and k (Qwen3).</summary>
    public bool QkNorm { get; init; }
    public bool FusedQkv { get; init; }
    public bool FusedGateUp { get; init; }
    public required string HiddenAct { get; init; }

    /// <summary>Tokens a layer looks back, one entry a layer; null sees all.</summary>
    public required IReadOnlyList<int?> SlidingWindow { get; init; }
    public required int MaxPositions { get; init; }
    public required RopeSpec Rope { get; init; }

    /// <summary>Tokens that end an answer, from generation_config.json and config.json.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];

    /// <summary>The same tokens as a set.</summary>
    public HashSet<int> EndOfTurn => [.. EosTokenIds];

    public int? BosTokenId { get; init; }
    public int? PadTokenId { get; init; }

    /// <summary>Type the weights were saved in: float32, bfloat16, float16.</summary>
    public string? Dtype { get; init; }

    private static readonly string[] families = ["llama", "qwen2", "qwen3", "mistral", "phi3"];
    private static readonly string[] activations = ["silu", "gelu", "gelu_pytorch_tanh", "relu"];
    private static readonly string[] ropes = ["default", "linear", "llama3", "yarn", "dynamic"];

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

    /// <summary>Reads a config.json (or the one in a folder). All problems are in one fault.</summary>
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
        return Parse(new Settings(file, root), File.Exists(generation) ? Parse(generation) : null);
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

    /// <summary>Every tensor of the weights file, in the order of the layers.</summary>
    public IReadOnlyList<TensorSpec> Tensors
    {
        get
        {
            var tensors = new List<TensorSpec> { new("model.embed_tokens.weight", [VocabSize, HiddenSize]) };
            void Norm(string name, long size) => tensors.Add(new(name + ".weight", [size]));
            void Linear(LinearSpec linear)
            {
                tensors.Add(new(linear.Name + ".weight", [linear.Out, linear.In]));
                if (linear.HasBias)
                    tensors.Add(new(linear.Name + ".bias", [linear.Out]));
            }
            for (var i = 0; i < Layers; i++)
            {
                Norm($"model.layers.{i}.input_layernorm", HiddenSize);
                if (QkNorm)
                {
                    Norm($"model.layers.{i}.self_attn.q_norm", HeadDim);
                    Norm($"model.layers.{i}.self_attn.k_norm", HeadDim);
                }
                Norm($"model.layers.{i}.post_attention_layernorm", HiddenSize);
                foreach (var linear in LayerLinears(i))
                    Linear(linear);
            }
            Norm("model.norm", HiddenSize);
            if (!TieWordEmbeddings)
                Linear(new("lm_head", HiddenSize, VocabSize, false));
            return tensors;
        }
    }

    /// <summary>The linears of the layers, in the order they are run; the head is not among them.</summary>
    public IReadOnlyList<LinearSpec> Linears => [.. Enumerable.Range(0, Layers).SelectMany(LayerLinears)];

    /// <summary>Every linear that an adapter may lie around: those of the layers and the head.</summary>
    public IReadOnlyList<LinearSpec> AllLinears => [.. Linears, new("lm_head", HiddenSize, VocabSize, false)];

    /// <summary>Weights in all, a tied head counted once.</summary>
    public long Parameters => Tensors.Sum(tensor => tensor.Shape.Aggregate(1L, (a, b) => a * b));

    /// <summary>Linears of one layer.</summary>
    public IEnumerable<LinearSpec> LayerLinears(int layer)
    {
        var (attention, mlp) = ($"model.layers.{layer}.self_attn.", $"model.layers.{layer}.mlp.");
        long q = (long)Heads * HeadDim,
            kv = (long)KvHeads * HeadDim;
        if (FusedQkv)
        {
            yield return new(attention + "qkv_proj", HiddenSize, q + 2 * kv, QkvBias);
        }
        else
        {
            yield return new(attention + "q_proj", HiddenSize, q, QkvBias);
            yield return new(attention + "k_proj", HiddenSize, kv, QkvBias);
            yield return new(attention + "v_proj", HiddenSize, kv, QkvBias);
        }
        yield return new(attention + "o_proj", q, HiddenSize, OutBias);
        if (FusedGateUp)
        {
            yield return new(mlp + "gate_up_proj", HiddenSize, 2L * IntermediateSize, MlpBias);
        }
        else
        {
            yield return new(mlp + "gate_proj", HiddenSize, IntermediateSize, MlpBias);
            yield return new(mlp + "up_proj", HiddenSize, IntermediateSize, MlpBias);
        }
        yield return new(mlp + "down_proj", IntermediateSize, HiddenSize, MlpBias);
    }

    private static ModelSpec Parse(Settings config, JsonElement? generation)
    {
        var family = config.Text("model_type") ?? "";
        if (!families.Contains(family))
            throw new UserFault(
                $"{config.File}: the architecture \"{family}\" is not supported.",
                found: family,
                next: $"use a model of {string.Join(", ", families)}"
            );
        foreach (var (key, harmless) in foreign)
        {
            if (config.Raw(key) is { } value && value != "null" && value != harmless && value != harmless + ".0")
                config.Problem(key, $"is {value}, which is not supported");
        }

        var (heads, hidden, layers) = (
            config.Int("num_attention_heads", MostHeads),
            config.Int("hidden_size", MostWidth),
            config.Int("num_hidden_layers", MostLayers)
        );
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
        var dim = config.Int(
            "head_dim",
            MostWidth,
            family == "qwen3" ? 128
                : heads > 0 ? hidden / heads
                : 0
        );
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
        var act = config.Text("hidden_act") ?? "silu";
        if (!activations.Contains(act))
            config.Problem("hidden_act", $"\"{act}\" is not supported; known: {string.Join(", ", activations)}");
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
        if ((long)heads * dim > MostWidth)
            config.Problem(
                "head_dim",
                $"times num_attention_heads is {(long)heads * dim:N0}, which must be at most {MostWidth:N0}"
            );
        if (heads > 0 && kv > 0 && heads % kv != 0)
            config.Problem("num_key_value_heads", $"is {kv}, which does not divide num_attention_heads = {heads}");
        if (config.Flag("scale_attn_by_inverse_layer_idx", false))
            config.Problem("scale_attn_by_inverse_layer_idx", "is not supported");

        var bias = family is "llama" or "qwen3" && config.Flag("attention_bias", false);
        if (family is "mistral" or "phi3" or "qwen2" && config.Flag("attention_bias", false))
            config.Problem("attention_bias", $"is true, which {family} does not know");
        var rope = ReadRope(config, family, maxPositions);
        var rotary = (int)(dim * rope.PartialRotaryFactor);
        if (rotary % 2 != 0)
            config.Problem("head_dim", $"gives {rotary} rotary dimensions, which must be even");
        var spec = new ModelSpec
        {
            ModelType = family,
            VocabSize = config.Int("vocab_size", MostWords),
            HiddenSize = hidden,
            IntermediateSize = config.Int("intermediate_size", MostInner),
            Layers = layers,
            Heads = heads,
            KvHeads = kv,
            HeadDim = dim,
            RmsNormEps = config.Number("rms_norm_eps") ?? (family == "phi3" ? 1e-5 : 1e-6),
            TieWordEmbeddings = config.Flag("tie_word_embeddings", false),
            QkvBias = family == "qwen2" || bias,
            OutBias = bias,
            MlpBias = family == "llama" && config.Flag("mlp_bias", false),
            QkNorm = family == "qwen3",
            FusedQkv = family == "phi3",
            FusedGateUp = family == "phi3",
            HiddenAct = act,
            SlidingWindow = Windows(config, family, layers),
            MaxPositions = maxPositions,
            Rope = rope,
            EosTokenIds = [.. Ids(generation, "eos_token_id").Concat(Ids(config.Root, "eos_token_id")).Distinct()],
            BosTokenId = Ids(config.Root, "bos_token_id").Select(id => (int?)id).FirstOrDefault(),
            PadTokenId = Ids(config.Root, "pad_token_id").Select(id => (int?)id).FirstOrDefault(),
            Dtype = config.Text("dtype") ?? config.Text("torch_dtype"),
        };
        config.Throw();
        return spec;
    }

    private static RopeSpec ReadRope(Settings config, string family, int maxPositions)
    {
        // The newer spelling holds everything in rope_parameters; the older one has rope_theta beside rope_scaling.
        var given = config.Object("rope_scaling") ?? config.Object("rope_parameters");
        if (given is { } perLayer && perLayer.EnumerateObject().Any(p => p.Value.ValueKind == JsonValueKind.Object))
            config.Problem("rope_parameters", "differ by layer type, which is not supported");
        var type = (given is { } g ? Settings.Text(g, "rope_type") ?? Settings.Text(g, "type") : null) ?? "default";
        if (family == "phi3" && type != "default")
            config.Problem("rope_type", $"\"{type}\" is not supported for phi3");
        foreach (
            var key in new[] { "rope_scaling", "rope_parameters" }.Where(key =>
                config.Raw(key) is { } raw && raw != "null" && config.Object(key) is null
            )
        )
            config.Problem(key, "must be an object");
        if (
            given is { } kinds
            && new[] { "rope_type", "type" }.Any(key =>
                kinds.TryGetProperty(key, out var kind)
                && kind.ValueKind is not (JsonValueKind.String or JsonValueKind.Null)
            )
        )
            config.Problem("rope_type", "must be a string");
        if (!ropes.Contains(type))
            config.Problem("rope_type", $"\"{type}\" is not supported; known: {string.Join(", ", ropes)}");
        double? Of(string key) => given is { } e ? config.Number(e, key) : null;
        var rope = new RopeSpec
        {
            Type = type,
            Theta = Of("rope_theta") ?? config.Number("rope_theta") ?? 1e4,
            Factor = Of("factor"),
            LowFreqFactor = Of("low_freq_factor"),
            HighFreqFactor = Of("high_freq_factor"),
            OriginalMaxPositions =
                (int?)(Of("original_max_position_embeddings") ?? config.Number("original_max_position_embeddings"))
                ?? maxPositions,
            AttentionFactor = Of("attention_factor"),
            BetaFast = Of("beta_fast"),
            BetaSlow = Of("beta_slow"),
            Mscale = Of("mscale"),
            MscaleAllDim = Of("mscale_all_dim"),
            Truncate =
                given is not { } e2
                || !e2.TryGetProperty("truncate", out var cut)
                || cut.ValueKind != JsonValueKind.False,
            PartialRotaryFactor = Of("partial_rotary_factor") ?? config.Number("partial_rotary_factor") ?? 1,
        };
        string[] needed = type switch
        {
            "linear" or "dynamic" => ["factor"],
            "yarn" => ["factor"],
            "llama3" => ["factor", "low_freq_factor", "high_freq_factor"],
            _ => [],
        };
        foreach (var key in needed.Where(key => Of(key) is null))
            config.Problem(key, $"is missing, which rope_type {type} needs");
        foreach (
            var (key, value) in new[]
            {
                ("factor", rope.Factor),
                ("low_freq_factor", rope.LowFreqFactor),
                ("high_freq_factor", rope.HighFreqFactor),
                ("rope_theta", rope.Theta),
                ("partial_rotary_factor", rope.PartialRotaryFactor),
                ("original_max_position_embeddings", rope.OriginalMaxPositions),
            }
        )
        {
            if (value is <= 0)
                config.Problem(key, $"is {value}, which must be above 0");
        }
        if (type == "llama3" && rope.LowFreqFactor >= rope.HighFreqFactor)
            config.Problem(
                "low_freq_factor",
                $"is {rope.LowFreqFactor}, which must be below high_freq_factor = {rope.HighFreqFactor}"
            );
        if (rope.PartialRotaryFactor > 1)
            config.Problem("partial_rotary_factor", $"is {rope.PartialRotaryFactor}, which must be at most 1");
        if (rope.PartialRotaryFactor != 1 && family != "phi3")
            config.Problem("partial_rotary_factor", $"is {rope.PartialRotaryFactor}, which {family} does not know");
        return rope;
    }

    private static int?[] Windows(Settings config, string family, int layers)
    {
        if (family == "llama")
            return new int?[Math.Max(0, layers)]; // LlamaConfig has no window, whatever else is written
        if (config.Number("sliding_window") is { } size && size != Math.Floor(size))
            config.Problem("sliding_window", $"is {size}, which must be a whole number");
        var window = (int?)config.Number("sliding_window");
        if (window is null && !config.Has("sliding_window"))
            window = family switch
            {
                "mistral" or "qwen2" or "qwen3" => 4096,
                _ => null,
            };
        if (family is "qwen2" or "qwen3" && !config.Flag("use_sliding_window", false))
            window = null;
        if (window is <= 0)
            config.Problem("sliding_window", $"is {window}, which must be above 0");
        var given = config.Root.TryGetProperty("layer_types", out var list) && list.ValueKind != JsonValueKind.Null;
        if (given && list.ValueKind != JsonValueKind.Array)
            config.Problem("layer_types", "must be a list");
        var types =
            given && list.ValueKind == JsonValueKind.Array
                ? list.EnumerateArray().Select(item => item.ToString()).ToArray()
                : null;
        if (types is not null && types.Length != layers)
            config.Problem("layer_types", $"has {types.Length} entries for {layers} layers");
        foreach (
            var unknown in (types ?? []).Distinct().Where(type => type is not ("full_attention" or "sliding_attention"))
        )
            config.Problem("layer_types", $"\"{unknown}\" is not supported");
        if (window is null && types?.Contains("sliding_attention") == true)
            config.Problem("layer_types", "has sliding_attention, but no sliding_window is in use");
        if (family is "mistral" or "phi3" && types?.Distinct().Count() > 1)
            config.Problem("layer_types", $"mixes kinds, which {family} does not know");
        var from = family is "qwen2" or "qwen3" ? config.Number("max_window_layers") ?? 28 : 0;
        return
        [
            .. Enumerable
                .Range(0, Math.Max(0, layers))
                .Select(i =>
                    types is { } t && i < t.Length
                        ? t[i] == "sliding_attention"
                            ? window
                            : null
                        : i >= from
                            ? window
                            : null
                ),
        ];
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

    /// <summary>A config.json being read: collects what is wrong with it.</summary>
    private sealed class Settings(string file, JsonElement root)
    {
        private readonly List<Problem> problems = [];

        public string File => file;

        public JsonElement Root => root;

        public void Problem(string key, string message) => problems.Add(new(key, UserFault.Short(message), file));

        public bool Has(string key) => root.TryGetProperty(key, out _);

        public string? Raw(string key) => root.TryGetProperty(key, out var value) ? value.GetRawText() : null;

        public string? Text(string key) => Text(root, key);

        public static string? Text(JsonElement from, string key) =>
            from.TryGetProperty(key, out var value) && value.ValueKind == JsonValueKind.String
                ? value.GetString()
                : null;

        public JsonElement? Object(string key) =>
            root.TryGetProperty(key, out var value) && value.ValueKind == JsonValueKind.Object ? value : null;

        public double? Number(string key) => Number(root, key);

        public double? Number(JsonElement from, string key)
        {
            if (!from.TryGetProperty(key, out var value) || value.ValueKind == JsonValueKind.Null)
                return null;
            if (value.ValueKind == JsonValueKind.Number && value.GetDouble() is var number && double.IsFinite(number))
                return number;
            Problem(key, $"is {value.GetRawText()}, which must be a number");
            return null;
        }

        /// <summary>A whole number from 1; what is refused is given as 1, so that reading can go on.</summary>
        public int Int(string key, int most, int? otherwise = null)
        {
            var value = Number(key) ?? otherwise;
            if (value is null && Raw(key) is null or "null")
                Problem(key, "is missing");
            else if (value is null)
                return 1; // told already
            else if (value < 1 || value > most || value != Math.Floor(value.Value))
                Problem(
                    key,
                    $"is {value.Value.ToString(CultureInfo.InvariantCulture)}, which must be a whole number from "
                        + $"1 to {most:N0}"
                );
            else
                return (int)value;
            return 1;
        }

        public bool Flag(string key, bool otherwise)
        {
            if (!root.TryGetProperty(key, out var value) || value.ValueKind == JsonValueKind.Null)
                return otherwise;
            if (value.ValueKind is JsonValueKind.True or JsonValueKind.False)
                return value.GetBoolean();
            Problem(key, $"is {value.GetRawText()}, which must be true or false");
            return otherwise;
        }

        public void Throw()
        {
            if (problems.Count > 0)
            {
                throw new UserFault(
                    $"{file} describes a model that is not supported or not whole.",
                    found: string.Join("; ", problems.Select(p => $"{p.Path} {p.Message}"))
                )
                {
                    Problems = problems,
                };
            }
        }
    }
}
