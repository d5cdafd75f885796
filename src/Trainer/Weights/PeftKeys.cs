using System.Text.Json;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Weights;

/// <summary>The keys of an adapter_config.json, as LoraConfig of PEFT 0.21 has them, and the values of each that are
/// implemented. Every other value is refused by name, and so is a value of a key that is not declared here.
/// </summary>
internal static class PeftKeys
{
    // Given a value, what it must be instead; null when it is accepted.
    private delegate string? Rule(JsonElement value);

    private static readonly Dictionary<string, Rule> used = new()
    {
        ["peft_type"] = value => Text(value) == "LORA" ? null : "only LORA is supported",
        ["task_type"] = value => Null(value) || Text(value) == "CAUSAL_LM" ? null : "only CAUSAL_LM is supported",
        ["r"] = value => Whole(value) ? null : "must be a whole number above 0",
        ["lora_alpha"] = value => Number(value) ? null : "must be a number",
        ["lora_dropout"] = value =>
            Null(value) || (Number(value) && value.GetDouble() is >= 0 and <= 1)
                ? null
                : "must be a number from 0 to 1",
        ["use_rslora"] = value =>
            Null(value) || value.ValueKind is JsonValueKind.True or JsonValueKind.False
                ? null
                : "must be true or false",
        ["bias"] = value =>
            Null(value) || Text(value) is "none" or "all" or "lora_only"
                ? null
                : "must be \"none\", \"all\" or \"lora_only\"",
        ["rank_pattern"] = value => Map(value, Whole),
        ["alpha_pattern"] = value => Map(value, Number),
        ["base_model_name_or_path"] = value => Null(value) || Text(value) is not null ? null : "must be a string",
        ["revision"] = value => Null(value) || Text(value) is not null ? null : "must be a string",
        ["init_lora_weights"] = Start,
    };

    // Which modules have an adapter: the tensors tell it.
    private static readonly string[] place =
    [
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
    ];

    // How the adapter was made, which changes nothing in what it means. A start that does is refused by
    // init_lora_weights.
    private static readonly string[] history =
    [
        "inference_mode",
        "peft_version",
        "auto_mapping",
        "runtime_config",
        "megatron_core",
        "qalora_group_size",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
    ];

    // Other forms of LoRA, and weights beside the pairs.
    private static readonly string[] foreign =
    [
        "use_dora",
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "fan_in_fan_out",
        "modules_to_save",
        "layer_replication",
        "megatron_config",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
        "arrow_config",
        "kasa_config",
        "monteclora_config",
        "velora_config",
        "ensure_weight_tying",
    ];

    private static readonly Dictionary<string, Rule> rules = new([
        .. used,
        .. place.Concat(history).Select(key => KeyValuePair.Create<string, Rule>(key, _ => null)),
        .. foreign.Select(key => KeyValuePair.Create<string, Rule>(key, value => Off(value) ? null : "not supported")),
    ]);

    /// <summary>Keys without which an adapter cannot be loaded.</summary>
    private static readonly string[] needed = ["peft_type", "r", "lora_alpha"];

    /// <summary>What is wrong, a sentence for each key.</summary>
    public static IReadOnlyList<string> Problems(IReadOnlyDictionary<string, JsonElement> config)
    {
        var missing = needed.Where(key => !config.TryGetValue(key, out var value) || Null(value)).ToList();
        var problems = missing
            .Select(key => $"{key} is missing{(config.ContainsKey(key) ? ": it is null" : "")}")
            .ToList();
        foreach (var (key, value) in config.Where(entry => !missing.Contains(entry.Key)))
        {
            if (rules.TryGetValue(key, out var rule))
            {
                if (rule(value) is { } problem)
                    problems.Add($"{key} is {Shown(value)}: {problem}");
            }
            else if (!Off(value))
            {
                problems.Add(
                    $"{Cut(key)} is {Shown(value)}: a key that this version does not know and that may matter"
                );
            }
        }
        return problems;
    }

    /// <summary>How the pairs began. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base by the values that A and B
    /// begin with, so A and B were trained over another base than the one they name. PEFT changes the base again when
    /// it loads PiSSA, OLoRA and LoftQ, and cannot do so for the other two. The accepted ways leave the base as it was.
    /// </summary>
    private static string? Start(JsonElement value)
    {
        if (Null(value) || value.ValueKind is JsonValueKind.True or JsonValueKind.False)
            return null;
        var name = Text(value)?.ToLowerInvariant() ?? "";
        if (name is "gaussian" or "eva" or "orthogonal")
            return null;
        if (name == "mica")
            return "not supported: it keeps B frozen";
        return
            name is "pissa" or "corda" or "olora" or "loftq" or "lora_ga"
            || name.StartsWith("pissa_niter_", StringComparison.Ordinal)
            ? "not supported: the adapter was trained over a base from which its first values were taken out. PEFT's "
                + "save_pretrained(…, path_initial_model_for_weight_conversion=…) writes it as plain LoRA"
            : "not a way to start that this version knows";
    }

    private static string? Map(JsonElement value, Func<JsonElement, bool> fits)
    {
        if (Null(value))
            return null;
        if (value.ValueKind != JsonValueKind.Object)
            return "must be an object of names and numbers";
        var count = 0;
        foreach (var entry in value.EnumerateObject())
        {
            if (++count > ModulePattern.Most)
                return $"must have at most {ModulePattern.Most} keys";
            if (ModulePattern.Problem(entry.Name) is { } problem)
                return $"its key \"{Cut(entry.Name)}\" {problem}";
            if (!fits(entry.Value))
                return $"its \"{entry.Name}\" is {Shown(entry.Value)}";
        }
        return null;
    }

    /// <summary>A value that switches something off.</summary>
    private static bool Off(JsonElement value) =>
        value.ValueKind switch
        {
            JsonValueKind.Null or JsonValueKind.False => true,
            JsonValueKind.Object => !value.EnumerateObject().Any(),
            JsonValueKind.Array => value.GetArrayLength() == 0,
            JsonValueKind.String => value.GetString() is "",
            _ => false,
        };

    private static bool Null(JsonElement value) => value.ValueKind == JsonValueKind.Null;

    private static string? Text(JsonElement value) =>
        value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static bool Number(JsonElement value) =>
        value.ValueKind == JsonValueKind.Number && double.IsFinite(value.GetDouble());

    private static bool Whole(JsonElement value) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var whole) && whole > 0;

    private static string Shown(JsonElement value) => Cut(value.GetRawText());

    private static string Cut(string text) => text.Length <= 80 ? text : text[..80] + "…";
}
