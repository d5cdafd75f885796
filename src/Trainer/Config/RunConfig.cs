using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Memopt.Core;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config;

/// <summary>Must be the same when a run is resumed: a checkpoint made with another value is refused.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class PinnedAttribute : Attribute;

/// <summary>The unit a number is in, for help texts and the schema.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class UnitAttribute(string unit) : Attribute
{
    public string Unit { get; } = unit;
}

/// <summary>Everything that decides a fine-tune. Every setting is declared here, once: type, default, unit,
/// cost.</summary>
public sealed record RunConfig
{
    [Description("The model to start from.")]
    public ModelConfig Model { get; init; } = new();

    [Description("What it learns from and is judged on.")]
    public DataConfig Data { get; init; } = new();

    [Description("The small weights that are trained in place of the model's own.")]
    public AdapterConfig Adapter { get; init; } = new();

    [Description("How the frozen base is kept in 4 bits (adapter.kind = qlora).")]
    public QuantizationConfig Quantization { get; init; } = new();

    [Description("What is given up to fit in memory.")]
    public MemoryConfig Memory { get; init; } = new();

    [Description("Steps, batch, optimizer, schedule.")]
    public TrainConfig Train { get; init; } = new();

    [Description("When the state is written so that a killed run goes on.")]
    public CheckpointConfig Checkpoint { get; init; } = new();

    [Description("Where runs and artifacts are recorded.")]
    public TrackingConfig Tracking { get; init; } = new();
}

public enum DType
{
    Auto,

    [Alias("fp32", "float")]
    Float32,

    [Alias("bf16")]
    Bfloat16,

    [Alias("fp16", "half")]
    Float16,
}

public sealed record ModelConfig
{
    [
        Description(
            "Model folder (relative to the config file), org/name on the Hugging Face Hub, modelscope:org/name, "
                + "https://host/folder, az://account/container/path, or 'embedded:nano', the small model that ships "
                + "with the tool."
        ),
        Pinned
    ]
    public string Source { get; init; } = "embedded:nano";

    [
        Description(
            "Branch, tag or commit of a downloaded model; none is the main branch. The commit taken is recorded "
                + "with the run."
        ),
        Pinned
    ]
    public string? Revision { get; init; }

    [Description("Compute type. auto is bfloat16 on a GPU that has it and float32 on a CPU."), Pinned]
    public DType Dtype { get; init; } = DType.Auto;
}

public enum TrainOn
{
    Assistant,
    All,
}

/// <summary>What becomes of a row that is longer than data.maxLength.</summary>
public enum Truncation
{
    Drop,

    [Alias("keep_end")]
    Left, // TRL

    [Alias("keep_start")]
    Right,
    Split,
}

public sealed record DataConfig
{
    [Description(
        "What to train on, one source or a list: a file, folder or glob (relative to the config file; JSON "
            + "Lines, JSON, CSV, TSV, Parquet, each also .gz, .br or .zst), or hf:org/name, "
            + "hf:org/name:configuration:split. '#500' behind it takes 500 rows; as an object it has a weight, columns "
            + "and a format too."
    )]
    public DataSources Train { get; init; } = DataSources.Of("train.jsonl");

    [Description("What to evaluate on, likewise; none skips evaluation, unless evalShare is set.")]
    public DataSources? Eval { get; init; }

    /// <summary>All that rows come from, for either use.</summary>
    public IEnumerable<DataSource> Sources => Train.List.Concat(Eval?.List ?? []);

    [
        Description(
            "Share of the training rows that is kept for evaluation instead, chosen by a hash of each row's "
                + "content: a row stays on its side whatever else is in the file."
        ),
        Range(0.0, 0.9),
        Pinned
    ]
    public double EvalShare { get; init; }

    [
        Description("Longest row; truncate says what becomes of a longer one. Activation memory grows with it."),
        Unit("tokens"),
        Range(2, 1 << 24),
        Pinned
    ]
    public int MaxLength { get; init; } = 1024;

    [
        Description(
            "What becomes of a row longer than maxLength: right cuts its end, left its beginning, drop leaves it "
                + "out, split makes several rows of it."
        ),
        Pinned
    ]
    public Truncation Truncate { get; init; } = Truncation.Right;

    [
        Description(
            "Pack short rows into one sequence of maxLength, each seeing only itself. Saves the cost of padding."
        ),
        Pinned
    ]
    public bool Packing { get; init; }

    [Description("Draw a new order every epoch."), Pinned]
    public bool Shuffle { get; init; } = true;

    [Description("Seed of the order, of '#N' samples and of which rows a weight takes."), Pinned]
    public int Seed { get; init; } = 42;

    [Description(
        "Folder for the tokens of large files (relative to the config file), kept by content so that later runs "
            + "begin at once. Takes about as much disk as the text; may be removed at any time."
    )]
    public string Cache { get; init; } = ".memopt/data";

    [Description("Which tokens of a chat carry loss: the assistant's turns, or all."), Pinned]
    public TrainOn TrainOn { get; init; } = TrainOn.Assistant;
}

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
                + "NAME, NAME@alias, NAME@3; its rank, alpha and targets are taken."
        ),
        Pinned
    ]
    public string? From { get; init; }

    [Description("Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732)."), Pinned]
    public bool UseRslora { get; init; }

    [Description("Biases trained beside the adapter: none, all, or those of adapted modules (PEFT's 'bias')."), Pinned]
    public BiasMode Biases { get; init; } = BiasMode.None;

    [
        Description(
            "Rank of single modules (PEFT's 'rank_pattern'): each key is a regular expression that fits a "
                + "module's whole name or its end after a dot, such as q_proj or layers\\.0\\..*_proj. The first key "
                + "that fits counts; a key that fits no adapted module is an error."
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

/// <summary>Either all linears or a list of module names. In JSON: the string "all-linear" or an array of
/// strings.</summary>
public sealed record Targets(IReadOnlyList<string> Names)
{
    public static Targets AllLinear { get; } = new([]);

    public bool All => Names.Count == 0;

    /// <summary>Whether a module is one of the targets: all linears but the head, or those whose name is or ends in a
    /// listed name.</summary>
    public bool Cover(string module) => All ? module != "lm_head" : Names.Any(name => Matches(module, name));

    /// <summary>PEFT's rule: the whole name, or its end after a dot.</summary>
    public static bool Matches(string module, string name) =>
        module == name || module.EndsWith("." + name, StringComparison.Ordinal);

    /// <summary>The shortest names that mean certain modules: the last part where every module of that name is meant,
    /// full names otherwise.</summary>
    /// <param name="modules">All modules.</param>
    /// <param name="meant">Whether one is meant.</param>
    internal static IEnumerable<string> NamesOf(IEnumerable<string> modules, Func<string, bool> meant) =>
        modules
            .GroupBy(name => name[(name.LastIndexOf('.') + 1)..])
            .SelectMany(group => group.All(meant) ? [group.Key] : group.Where(meant))
            .Order(StringComparer.Ordinal);

    public bool Equals(Targets? other) => other is not null && Names.SequenceEqual(other.Names);

    public override int GetHashCode() => Names.Aggregate(0, HashCode.Combine);
}

public enum QuantType
{
    Nf4,
    Fp4,
}

public sealed record QuantizationConfig
{
    [Description("4-bit code: nf4 (QLoRA, arXiv 2305.14314) or fp4."), Pinned]
    public QuantType Type { get; init; } = QuantType.Nf4;

    [Description("Quantize the block scales too: 4.127 bits a weight instead of 4.5."), Pinned]
    public bool DoubleQuant { get; init; } = true;

    [Description("Type the 4-bit weights are expanded to for a product; auto follows model.dtype."), Pinned]
    public DType ComputeType { get; init; } = DType.Auto;
}

public enum MemoryStrategy
{
    Auto,
    Manual,
}

/// <summary>What a layer that is run twice keeps of its first run beside its input: each costs as much memory as the
/// input again.</summary>
[Flags]
public enum SavedForBackward
{
    Nothing = 0,

    /// <summary>What attention gave: saves its second run.</summary>
    Attention = 1,

    /// <summary>The sum between attention and feed-forward: saves the second run of the output projection.</summary>
    Residual = 2,

    Both = Attention | Residual,
}

public sealed record MemoryConfig
{
    [Description("auto takes the fastest settings that fit; manual takes those below as written.")]
    public MemoryStrategy Strategy { get; init; } = MemoryStrategy.Auto;

    [Description(
        "Activation checkpointing (gradient checkpointing): recompute activations in the backward pass. Saves "
            + "one input a layer; costs about a third more compute. None: decided by the strategy."
    )]
    public bool? Recompute { get; init; }

    [Description(
        "Which tensors activation checkpointing saves besides layer inputs: nothing, attention (its output), "
            + "residual (the sum after it), both. Each takes as much memory as the inputs and saves some time. None: "
            + "decided by the strategy."
    )]
    public SavedForBackward? Keep { get; init; }

    [Description(
        "Activation offload: hold the tensors that activation checkpointing saves in pinned host memory until "
            + "backward (GPU only; needs recompute). Costs host memory, and little time: copies run beside the "
            + "computation. None: decided by the strategy."
    )]
    public bool? OffloadActivations { get; init; }

    [Description(
        "Keep trained weights and moments in host memory (GPU only); each step brings them to the device a piece "
            + "at a time. Costs 24 bytes a trained weight over the bus, a step. None: decided by the strategy."
    )]
    public bool? OffloadOptimizer { get; init; }

    [
        Description(
            "Layers whose frozen weights lie in host memory, or in a file where that is too small, and are "
                + "brought to the device for each use. Costs their bytes over the bus twice a micro-batch. None: "
                + "decided by the strategy."
        ),
        Unit("layers"),
        Range(0, 10000)
    ]
    public int? StreamLayers { get; init; }

    [Description("Device memory the run may take; none is all that is free."), Unit("GiB"), Range(0.001, 1e6)]
    public double? BudgetGiB { get; init; }

    [
        Description("Host memory that offloading may take on a GPU machine; none is all that is free."),
        Unit("GiB"),
        Range(0.001, 1e6)
    ]
    public double? HostBudgetGiB { get; init; }

    [Description(
        "On a GPU, or with a budget: before the first step, run the longest batch out and back, an evaluation of "
            + "the longest rows, and read through what a checkpoint writes, so that what does not fit shows in the "
            + "first seconds."
    )]
    public bool Rehearse { get; init; } = true;
}

public enum ScheduleKind
{
    [Alias("constant_with_warmup")]
    Constant,

    [Alias("linear_with_warmup")]
    Linear,

    [Alias("cosine_with_warmup")]
    Cosine,
}

public enum OptimizerKind
{
    [Alias("adamw_torch", "adamw_torch_fused")]
    Adamw, // transformers
}

public sealed record TrainConfig
{
    [Description("Optimizer steps; none follows from epochs."), Unit("steps"), Range(1, int.MaxValue), Pinned]
    public int? Steps { get; init; }

    [Description("Passes over the data, when steps is not set."), Range(1e-3, 1e6), Pinned]
    public double Epochs { get; init; } = 3;

    [
        Description(
            "Sequences per optimizer step, over all devices; the last step of an epoch has those that are left."
        ),
        Unit("sequences"),
        Range(1, 1 << 20),
        Pinned
    ]
    public int BatchSize { get; init; } = 16;

    [
        Description(
            "Sequences computed at once; the step accumulates the rest. None: the whole batch. Smaller takes "
                + "less memory."
        ),
        Unit("sequences"),
        Range(1, 1 << 20),
        Pinned
    ]
    public int? MicroBatch { get; init; }

    [Description("Learning rate at its highest."), Range(0.0, 10.0), Pinned]
    public double LearningRate { get; init; } = 2e-4;

    [Description("How the learning rate falls: constant, linear to 0, cosine to 0."), Pinned]
    public ScheduleKind Schedule { get; init; } = ScheduleKind.Linear;

    [
        Description(
            "Steps over which the learning rate rises from 0; a value below 1 is a share of all steps, rounded up."
        ),
        Unit("steps"),
        Range(0.0, 1e9),
        Pinned
    ]
    public double Warmup { get; init; }

    [Description("AdamW's decoupled weight decay."), Range(0.0, 10.0), Pinned]
    public double WeightDecay { get; init; }

    [Description("Largest gradient norm; 0 leaves it alone."), Range(0.0, 1e9), Pinned]
    public double Clip { get; init; } = 1.0;

    [Description("The optimizer. adamw keeps two fp32 moments a trained weight (8 bytes)."), Pinned]
    public OptimizerKind Optimizer { get; init; } = OptimizerKind.Adamw;

    [Description("Decay of AdamW's moments."), Pinned]
    public IReadOnlyList<double> Betas { get; init; } = [0.9, 0.999];

    [Description("Added to AdamW's denominator."), Range(0.0, 1.0), Pinned]
    public double Epsilon { get; init; } = 1e-8;

    [
        Description(
            "Give the same bits on every run with the same seed, also on a GPU. Costs little for short "
                + "sequences; about a third of the time at 16,384 tokens."
        ),
        Pinned
    ]
    public bool Deterministic { get; init; } = true;

    [Description("Seed of the adapter's start and of dropout."), Pinned]
    public int Seed { get; init; } = 42;
}

public sealed record CheckpointConfig
{
    [
        Description("Optimizer steps between checkpoints. A kill costs at most this many."),
        Unit("steps"),
        Range(1, int.MaxValue)
    ]
    public int Every { get; init; } = 200;

    [Description("Whole checkpoints kept; older ones are deleted."), Range(1, 1000)]
    public int Keep { get; init; } = 2;
}

/// <summary>What becomes of checkpoints when artifacts go to a storage account.</summary>
public enum CheckpointUploads
{
    Upload,
    Keep,
}

public sealed record TrackingConfig
{
    [Description("Folder of the run store (relative to the config file).")]
    public string Store { get; init; } = ".memopt/store";

    [Description("Name the run is filed under.")]
    public string Experiment { get; init; } = "default";

    [Description(
        "Where artifacts are stored by content hash: a folder (relative to the config file), or "
            + "az://account/container/path, to which they go from .memopt/artifacts (AZURE_STORAGE_CONNECTION_STRING, "
            + "AZURE_STORAGE_SAS_TOKEN or the Azure login of this machine)."
    )]
    public string Artifacts { get; init; } = ".memopt/artifacts";

    [Description(
        "Whether checkpoints go to the storage account too, when artifacts do: upload, or keep them here. Sent "
            + "in the background, newest first, one that checkpoint.keep removes before its turn not at all. Each "
            + "takes its size in the account until artifacts rm --checkpoints."
    )]
    public CheckpointUploads Checkpoints { get; init; } = CheckpointUploads.Upload;

    [
        Description(
            "How long a training that is done waits for the storage account, trying again while it cannot be "
                + "reached. What is not there then is sent by the next run or by artifacts sync."
        ),
        Unit("hours"),
        Range(0.0, 1000.0)
    ]
    public double UploadHours { get; init; } = 4;

    [Description(
        "Name under which a finished run's adapter is registered as the next version (adapters ls); none is the "
            + "experiment's name."
    )]
    public string? Register { get; init; }

    [Description("What tells the best version of a registered adapter: min or max of a metric.")]
    public string Best { get; init; } = "min(eval_loss)";

    [Description(
        "Folder for TensorBoard's event files (relative to the config file), one folder a run in it, written as "
            + "the run goes; none writes none."
    )]
    public string? Tensorboard { get; init; }

    [Description("Free labels for queries.")]
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();
}
