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

    /// <summary>With the weights of the layers sharded too: frozen ones as <see cref="Zero1"/>, trained ones as
    /// <see cref="Zero2"/>.</summary>
    Zero3,
}

/// <summary>The library by which ranks communicate, as torch.distributed names it.</summary>
public enum DistributedBackend
{
    /// <summary>NCCL on GPUs, MPI on CPUs.</summary>
    Auto,

    /// <summary>NVIDIA's library for GPUs.</summary>
    Nccl,

    /// <summary>The MPI that started the ranks.</summary>
    Mpi,
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
        "auto: that of the fastest plan; of equally fast ones the first of ddp, zero1, zero2, zero3. ddp: data "
            + "parallel; every rank holds the model and computes a part of each batch, and the sum of the gradients "
            + "costs one all-reduce a step. zero1: the fp32 weights and moments of the optimizer are sharded; a step "
            + "costs a reduce-scatter of the gradients and an all-gather of the weights. zero2: the gradients are "
            + "sharded too, with a reduce-scatter in every micro-batch. zero3: the weights of the layers are sharded "
            + "too, with an all-gather of each layer before its forward and its backward; with an adapter the rest is "
            + "as in zero1, without one as in zero2."
    )]
    public DistributedStrategy Strategy { get; init; } = DistributedStrategy.Auto;

    [
        Description(
            "Ranks that share the matrices of each layer (tensor parallel, as Megatron-LM): each holds some heads of "
                + "attention, some columns of the MLP and a part of the vocabulary, and the activations are summed "
                + "twice a layer in forward and twice in backward. The ranks of a host, joined by NVLink, serve best. "
                + "The number of ranks is a multiple; the rest are data parallel."
        ),
        Unit("ranks"),
        Range(1, 64)
    ]
    public int Tensor { get; init; } = 1;

    [
        Description(
            "Ranks that share the tokens of each row (context parallel), for rows too long for one GPU: keys and "
                + "values are gathered in each layer. The number of ranks is a multiple; the rest are data parallel."
        ),
        Unit("ranks"),
        Range(1, 64)
    ]
    public int Context { get; init; } = 1;

    [
        Description(
            "Stages that compute the layers one after another (pipeline parallel, 1F1B as in Megatron-LM): each rank "
                + "holds a part of the layers, and sends hidden states to the next. Between hosts it needs the least "
                + "bandwidth. A stage waits (stages − 1) / (micro-batches + stages − 1) of the time: a step should "
                + "have four times as many micro-batches as stages. The number of ranks is a multiple; the rest are "
                + "data parallel, with strategy ddp or zero1."
        ),
        Unit("stages"),
        Range(1, 64)
    ]
    public int Pipeline { get; init; } = 1;

    [Description(
        "Library by which the ranks communicate. auto: NCCL on GPUs, MPI on CPUs. mpi: also on GPUs, whose tensors "
            + "then go through host memory; several ranks may share a GPU (CUDA_VISIBLE_DEVICES=0,0)."
    )]
    public DistributedBackend Backend { get; init; } = DistributedBackend.Auto;

    [Description(
        "A DeepSpeed JSON (relative to the config file) whose keys become settings: stage, batch, precision, "
            + "optimizer, schedule. A setting that this file says otherwise is an error; --set decides over both. "
            + "docs/distributed.md lists the keys."
    )]
    public string? Deepspeed { get; init; }

    [
        Description(
            "How often a run whose rank died or froze resumes by itself from its last checkpoint, where memopt started "
                + "the ranks."
        ),
        Range(0, 1000)
    ]
    public int Restarts { get; init; } = 3;
}
