using System.Text.Json;

namespace Memopt.Trainer.Plan;

/// <summary>Reads the sliding windows of config.json.</summary>
internal static class WindowConfig
{
    /// <summary>Tokens that each layer looks back; null sees all.</summary>
    public static int?[] Read(ConfigJson config, string family, int layers)
    {
        if (family == "llama")
            return new int?[Math.Max(0, layers)]; // LlamaConfig has no window, whatever else is written
        var window = Size(config, family);
        var types = LayerTypes(config, family, layers, window);
        var from = family is "qwen2" or "qwen3" ? config.Number("max_window_layers") ?? 28 : 0;
        int? Of(int layer) =>
            types is not null && layer < types.Length
                ? types[layer] == "sliding_attention"
                    ? window
                    : null
                : layer >= from
                    ? window
                    : null;
        return [.. Enumerable.Range(0, Math.Max(0, layers)).Select(Of)];
    }

    private static int? Size(ConfigJson config, string family)
    {
        if (config.Number("sliding_window") is { } size && size != Math.Floor(size))
            config.Problem("sliding_window", $"is {size}, which must be a whole number");
        var window = (int?)config.Number("sliding_window");
        if (window is null && !config.Has("sliding_window"))
            window = family is "mistral" or "qwen2" or "qwen3" ? 4096 : null;
        if (family is "qwen2" or "qwen3" && !config.Flag("use_sliding_window", false))
            window = null;
        if (window is <= 0)
            config.Problem("sliding_window", $"is {window}, which must be above 0");
        return window;
    }

    private static string[]? LayerTypes(ConfigJson config, string family, int layers, int? window)
    {
        if (!config.Root.TryGetProperty("layer_types", out var list) || list.ValueKind == JsonValueKind.Null)
            return null;
        if (list.ValueKind != JsonValueKind.Array)
        {
            config.Problem("layer_types", "must be a list");
            return null;
        }
        var types = list.EnumerateArray().Select(item => item.ToString()).ToArray();
        if (types.Length != layers)
            config.Problem("layer_types", $"has {types.Length} entries for {layers} layers");
        foreach (var unknown in types.Distinct().Where(type => type is not ("full_attention" or "sliding_attention")))
            config.Problem("layer_types", $"\"{unknown}\" is not supported");
        if (window is null && types.Contains("sliding_attention"))
            config.Problem("layer_types", "has sliding_attention, but no sliding_window is in use");
        if (family is "mistral" or "phi3" && types.Distinct().Count() > 1)
            config.Problem("layer_types", $"mixes kinds, which {family} does not know");
        return types;
    }
}
