using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Memopt.Core;

namespace Memopt.Trainer.Config;

public enum AdapterKind
{
    Lora,
    Qlora,

    [Alias("full")]
    None, // LLaMA-Factory
}

public enum BiasMode
{
    None,
    All,

    [Alias("lora_only")]
    LoraOnly, // PEFT
}

public sealed record AdapterConfig
{
    [
        Description(
            "lora: low-rank weights over a 16- or 32-bit base. qlora: the same over a 4-bit base. none: train "
                + "every weight."
        ),
        Pinned
    ]
    public AdapterKind Kind { get; init; } = AdapterKind.Lora;

    [Description("Rank of the LoRA product. Memory and compute of the adapter grow with it."), Range(1, 4096), Pinned]
    public int Rank { get; init; } = 16;

    [Description("LoRA scale: the product is multiplied by alpha / rank."), Range(1e-6, 1e6), Pinned]
    public double Alpha { get; init; } = 32;

    [Description("Share of adapter inputs dropped in training."), Range(0.0, 0.99), Pinned]
    public double Dropout { get; init; }

    [
        Description(
            "Modules that get an adapter: \"all-linear\" (every linear but the head) or a list of names as in "
                + "the weights file."
        ),
        Pinned
    ]
    public Targets Targets { get; init; } = Targets.AllLinear;

    [
        Description(
            "Adapter to start from, a folder (PEFT layout, relative to the config file) or a registered one: "
                + "NAME, NAME@alias, NAME@3; its rank, alpha and targets replace those of the config."
        ),
        Pinned
    ]
    public string? From { get; init; }

    [Description("Scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)."), Pinned]
    public bool UseRslora { get; init; }

    [Description("Biases trained beside the adapter: none, all, or those of adapted modules (PEFT's 'bias')."), Pinned]
    public BiasMode Biases { get; init; } = BiasMode.None;

    [
        Description(
            "Rank of single modules (PEFT's 'rank_pattern'): each key is a regular expression that matches a "
                + "module's whole name or its end after a dot, such as q_proj or layers\\.0\\..*_proj. The first "
                + "matching key applies; a key that matches no adapted module is an error."
        ),
        Pinned
    ]
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    [Description("Alpha of single modules (PEFT's 'alpha_pattern'); keys as in rankPattern."), Pinned]
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new Dictionary<string, double>();

    /// <summary>Rank of a module: that of the first pattern that fits it, else the adapter's.</summary>
    public int RankOf(string module) => ModulePattern.Of(RankPattern, module, Rank);

    /// <summary>Alpha of a module, likewise.</summary>
    public double AlphaOf(string module) => ModulePattern.Of(AlphaPattern, module, Alpha);

    /// <summary>What a module's product is multiplied by.</summary>
    public double ScaleOf(string module) => AlphaOf(module) / (UseRslora ? Math.Sqrt(RankOf(module)) : RankOf(module));
}
