using System.ComponentModel;

namespace Memopt.Trainer.Config;

/// <summary>Everything that decides a fine-tune. Every setting is declared here, once: type, default, unit,
/// cost.</summary>
public sealed record RunConfig
{
    [Description("The model to start from.")]
    public ModelConfig Model { get; init; } = new();

    [Description("Rows for training and evaluation.")]
    public DataConfig Data { get; init; } = new();

    [Description("The low-rank weights that are trained on the frozen model.")]
    public AdapterConfig Adapter { get; init; } = new();

    [Description("The 4-bit form of the frozen base (adapter.kind = qlora).")]
    public QuantizationConfig Quantization { get; init; } = new();

    [Description("Savings of memory, and their budgets.")]
    public MemoryConfig Memory { get; init; } = new();

    [Description("The ranks that train together: GPUs, and how they divide the work.")]
    public DistributedConfig Distributed { get; init; } = new();

    [Description("Steps, batch, optimizer, schedule.")]
    public TrainConfig Train { get; init; } = new();

    [Description("The checkpoints from which a stopped or killed run resumes.")]
    public CheckpointConfig Checkpoint { get; init; } = new();

    [Description("The record of runs and the store of artifacts.")]
    public TrackingConfig Tracking { get; init; } = new();
}
