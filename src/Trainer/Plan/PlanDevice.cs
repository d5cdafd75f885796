using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan;

/// <summary>What a plan is made for.</summary>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="FreeBytes">Bytes that may be used, or null when unknown.</param>
/// <param name="ComputeBytes">Bytes of a number in the compute type: 4 or 2.</param>
/// <param name="ContextBytes">What CUDA and libtorch's libraries take before anything is loaded; 0 when
/// <paramref name="FreeBytes"/> is what they left.</param>
/// <param name="HostBytes">On a GPU machine: host memory that may be used, or null when unknown.</param>
internal sealed record PlanDevice(
    string Kind,
    long? FreeBytes,
    int ComputeBytes,
    long ContextBytes = 0,
    long? HostBytes = null
)
{
    /// <summary>Whether attention is the fused kernels', which keep less: in 16 bits from compute capability 8.0
    /// on.</summary>
    public bool FusedAttention { get; init; }

    /// <summary>Multiprocessors: deterministic attention backward sums in as many parts as fill them.</summary>
    public int Multiprocessors { get; init; } = 132;

    /// <summary>Ranks with such a device that have the same weights and share each step's batch.</summary>
    public int Ranks { get; init; } = 1;

    /// <summary>Ranks that share each layer's matrices; the model that is planned is one rank's part.</summary>
    public int TensorRanks { get; init; } = 1;

    /// <summary>How many of them share the tokens of a row.</summary>
    public int ContextRanks { get; init; } = 1;

    /// <summary>Stages of a pipeline, each on such a device.</summary>
    public int Stages { get; init; } = 1;

    /// <summary>Micro-batches of a step on the rank that has the most.</summary>
    /// <param name="batch">Sequences of a step.</param>
    /// <param name="microBatch">Sequences of a micro-batch.</param>
    public int MicroBatches(int batch, int microBatch)
    {
        var (parts, ranks) = ((batch + microBatch - 1) / microBatch, Ranks / ContextRanks);
        return (parts + ranks - 1) / ranks;
    }

    /// <summary>The same with no more than a budget, which is for the run's own bytes, as in run.</summary>
    public PlanDevice Within(double gib) => this with { FreeBytes = (long)(gib * (1L << 30)), ContextBytes = 0 };

    /// <summary>A card of which nothing is in use yet. The context is that of an H200 under libtorch 2.11; other cards'
    /// are smaller.</summary>
    public static PlanDevice Of(Gpu gpu, DType type = DType.Auto) =>
        new("cuda", gpu.Bytes, type == DType.Float32 ? 4 : 2, 871_170_048)
        {
            FusedAttention = gpu.Bf16 && type != DType.Float32,
        };
}
