using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace Memopt.Trainer.Config;

/// <summary>How the ranks divide a training.</summary>
public enum DistributedStrategy
{
    /// <summary>The fastest that fits.</summary>
    Auto,

    /// <summary>Data parallel: every rank has the model, and a part of each batch.</summary>
    Ddp,

    /// <summary>Data parallel with the optimizer's arrays sharded.</summary>
    Zero1,

    /// <summary>Data parallel with the optimizer's arrays and the gradient sharded.</summary>
    Zero2,
}

public sealed record DistributedConfig
{
    [
        Description(
            "Ranks to start on this host, each a process with a GPU of its own; on a CPU mpirun starts them. None: "
                + "this process alone, or the ranks that mpirun, srun or torchrun have started."
        ),
        Unit("ranks"),
        Range(1, 64)
    ]
    public int? Gpus { get; init; }

    [Description(
        "auto: the fastest that fits. ddp: data parallel; every rank holds the model and computes a part of each "
            + "batch, and the sum of the gradients costs one all-reduce a step."
    )]
    public DistributedStrategy Strategy { get; init; } = DistributedStrategy.Auto;

    [
        Description(
            "How often a run whose rank died or froze resumes by itself from its last checkpoint, where memopt started "
                + "the ranks."
        ),
        Range(0, 1000)
    ]
    public int Restarts { get; init; } = 3;
}
