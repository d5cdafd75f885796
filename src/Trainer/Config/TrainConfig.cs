using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Memopt.Core;

namespace Memopt.Trainer.Config;

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
