using System.ComponentModel;

namespace Memopt.Trainer.Config;

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
