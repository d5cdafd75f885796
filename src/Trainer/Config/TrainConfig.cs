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
    [Description("Optimizer steps. None: computed from epochs."), Unit("steps"), Range(1, int.MaxValue), Pinned]
    public int? Steps { get; init; }

    [Description("Epochs, if steps is not set."), Range(1e-3, 1e6), Pinned]
    public double Epochs { get; init; } = 3;

    [
        Description(
            "Sequences per optimizer step, over all devices; the last step of an epoch has the remaining ones."
        ),
        Unit("sequences"),
        Range(1, 1 << 20),
        Pinned
    ]
    public int BatchSize { get; init; } = 16;

    [
        Description(
            "Sequences of one forward and backward; a step accumulates several. None: the whole batch. Smaller takes "
                + "less memory."
        ),
        Unit("sequences"),
        Range(1, 1 << 20),
        Pinned
    ]
    public int? MicroBatch { get; init; }

    [Description("Peak learning rate."), Range(0.0, 10.0), Pinned]
    public double LearningRate { get; init; } = 2e-4;

    [Description("Decay of the learning rate: constant, linear to 0, cosine to 0."), Pinned]
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

    [Description("Largest gradient norm; larger gradients are clipped. 0: no clipping."), Range(0.0, 1e9), Pinned]
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

    [Description("Seed of the adapter's initial weights and of dropout."), Pinned]
    public int Seed { get; init; } = 42;
}
