using System.Text.Json;

namespace Memopt.Trainer.Plan;

/// <summary>Reads the rotary positions of config.json.</summary>
internal static class RopeConfig
{
    private static readonly string[] types = ["default", "linear", "llama3", "yarn", "dynamic"];

    /// <summary>The newer spelling holds everything in rope_parameters; the older one has rope_theta beside
    /// rope_scaling.</summary>
    public static RopeSpec Read(ConfigJson config, string family, int maxPositions, int headDim)
    {
        var given = config.Object("rope_scaling") ?? config.Object("rope_parameters");
        if (given is { } perLayer && perLayer.EnumerateObject().Any(p => p.Value.ValueKind == JsonValueKind.Object))
            config.Problem("rope_parameters", "differ by layer type, which is not supported");
        var type = Type(config, family, given);
        double? Of(string key) => given is { } e ? config.Number(e, key) : null;
        var rope = new RopeSpec
        {
            Type = type,
            HeadDim = headDim,
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
            "linear" or "dynamic" or "yarn" => ["factor"],
            "llama3" => ["factor", "low_freq_factor", "high_freq_factor"],
            _ => [],
        };
        foreach (var key in needed.Where(key => Of(key) is null))
            config.Problem(key, $"is missing, which rope_type {type} needs");
        Check(config, family, rope);
        return rope;
    }

    private static string Type(ConfigJson config, string family, JsonElement? given)
    {
        var type = (given is { } g ? ConfigJson.Text(g, "rope_type") ?? ConfigJson.Text(g, "type") : null) ?? "default";
        if (family == "phi3" && type != "default")
            config.Problem("rope_type", $"\"{type}\" is not supported for phi3");
        foreach (var key in new[] { "rope_scaling", "rope_parameters" })
        {
            if (config.Raw(key) is { } raw && raw != "null" && config.Object(key) is null)
                config.Problem(key, "must be an object");
        }
        if (
            given is { } kinds
            && new[] { "rope_type", "type" }.Any(key =>
                kinds.TryGetProperty(key, out var kind)
                && kind.ValueKind is not (JsonValueKind.String or JsonValueKind.Null)
            )
        )
            config.Problem("rope_type", "must be a string");
        if (!types.Contains(type))
            config.Problem("rope_type", $"\"{type}\" is not supported; known: {string.Join(", ", types)}");
        return type;
    }

    private static void Check(ConfigJson config, string family, RopeSpec rope)
    {
        (string Key, double? Value)[] positive =
        [
            ("factor", rope.Factor),
            ("low_freq_factor", rope.LowFreqFactor),
            ("high_freq_factor", rope.HighFreqFactor),
            ("rope_theta", rope.Theta),
            ("partial_rotary_factor", rope.PartialRotaryFactor),
            ("original_max_position_embeddings", rope.OriginalMaxPositions),
        ];
        foreach (var (key, value) in positive.Where(pair => pair.Value is <= 0))
            config.Problem(key, $"is {value}, which must be above 0");
        if (rope.Type == "llama3" && rope.LowFreqFactor >= rope.HighFreqFactor)
            config.Problem(
                "low_freq_factor",
                $"is {rope.LowFreqFactor}, which must be below high_freq_factor = {rope.HighFreqFactor}"
            );
        if (rope.PartialRotaryFactor > 1)
            config.Problem("partial_rotary_factor", $"is {rope.PartialRotaryFactor}, which must be at most 1");
        if (rope.PartialRotaryFactor != 1 && family != "phi3")
            config.Problem("partial_rotary_factor", $"is {rope.PartialRotaryFactor}, which {family} does not know");
        if (rope.RotaryDim % 2 != 0)
            config.Problem("head_dim", $"gives {rope.RotaryDim} rotary dimensions, which must be even");
    }
}
