using System.Text.Json.Nodes;
using Memopt.Hub;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Config;
using Memopt.Trainer.Linears;

namespace Memopt.Trainer.Weights;

/// <summary>What adapter_config.json says of a model's adapter. The most frequent rank and the settings' alpha are the
/// folder's; modules that differ are listed as patterns.</summary>
internal sealed class PeftConfigFile(RunConfig settings, IReadOnlyList<Linear> linears)
{
    private readonly List<LoraLinear> loras = [.. linears.OfType<LoraLinear>()];

    private double Alpha => settings.Adapter.Alpha;

    public JsonObject Json()
    {
        var rank = loras.GroupBy(lora => lora.Rank).MaxBy(group => group.Count())?.Key ?? 1;
        return new()
        {
            ["alpha_pattern"] = AlphaPattern(),
            ["auto_mapping"] = null,
            ["base_model_name_or_path"] = ModelSource.Public(settings.Model.Source),
            ["bias"] = settings.Adapter.Biases switch
            {
                BiasMode.All => "all",
                BiasMode.LoraOnly => "lora_only",
                _ => "none",
            },
            ["fan_in_fan_out"] = false,
            ["inference_mode"] = true,
            ["init_lora_weights"] = true,
            ["layers_pattern"] = null,
            ["layers_to_transform"] = null,
            ["lora_alpha"] = Number(Alpha),
            ["lora_bias"] = false,
            ["lora_dropout"] = settings.Adapter.Dropout,
            ["modules_to_save"] = null,
            ["peft_type"] = "LORA",
            ["r"] = rank,
            ["rank_pattern"] = RankPattern(rank),
            ["revision"] = null,
            ["target_modules"] = TargetModules(),
            ["task_type"] = "CAUSAL_LM",
            ["use_dora"] = false,
            ["use_rslora"] = settings.Adapter.UseRslora,
        };
    }

    private JsonObject AlphaPattern() =>
        new(
            loras
                .Where(lora => Math.Abs(AlphaOf(lora) - Alpha) > 1e-9 * Alpha)
                .Select(lora => KeyValuePair.Create(lora.Name, Number(AlphaOf(lora))))
        );

    private double AlphaOf(LoraLinear lora) =>
        lora.Scale * (settings.Adapter.UseRslora ? Math.Sqrt(lora.Rank) : lora.Rank);

    private JsonObject RankPattern(int rank) =>
        new(
            loras.Where(lora => lora.Rank != rank).Select(lora => KeyValuePair.Create(lora.Name, (JsonNode?)lora.Rank))
        );

    private JsonArray TargetModules()
    {
        var adapted = loras.Select(lora => lora.Name).ToHashSet();
        return new([
            .. Targets.NamesOf(linears.Select(linear => linear.Name), adapted.Contains).Select(name => (JsonNode)name),
        ]);
    }

    private static JsonNode? Number(double value) =>
        value == Math.Floor(value) && Math.Abs(value) < 1e9 ? (JsonNode)(long)value : value;
}
