using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace Memopt.Trainer.Config;

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
    [Description("auto: the fastest settings that fit. manual: the settings below as written.")]
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
            + "backward (GPU only; needs recompute). Costs host memory and little time: copies overlap with the "
            + "computation. None: decided by the strategy."
    )]
    public bool? OffloadActivations { get; init; }

    [Description(
        "Keep trained weights and moments in host memory (GPU only); each step copies them to the device a piece "
            + "at a time. Costs 24 bytes a trained weight over the bus, a step. None: decided by the strategy."
    )]
    public bool? OffloadOptimizer { get; init; }

    [
        Description(
            "Number of layers whose frozen weights are in host memory, or in a file if that is too small, and are "
                + "copied to the device for each use. Costs their bytes over the bus twice a micro-batch. None: "
                + "decided by the strategy."
        ),
        Unit("layers"),
        Range(0, 10000)
    ]
    public int? StreamLayers { get; init; }

    [Description("Device memory that the run may take. None: all free memory."), Unit("GiB"), Range(0.001, 1e6)]
    public double? BudgetGiB { get; init; }

    [
        Description("Host memory that offloading may take on a GPU machine. None: all free memory."),
        Unit("GiB"),
        Range(0.001, 1e6)
    ]
    public double? HostBudgetGiB { get; init; }

    [Description(
        "On a GPU, or with a budget: rehearse before the first step, to find an out-of-memory error in the first "
            + "seconds: forward and backward of the longest batch, an evaluation of the longest rows, and a read of "
            + "everything that a checkpoint writes."
    )]
    public bool Rehearse { get; init; } = true;
}
