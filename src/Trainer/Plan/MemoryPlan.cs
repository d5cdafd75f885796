using Memopt.Tracking;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan;

/// <summary>Bytes that training on a rung will need, row by row, from config.json and the settings alone.
/// <see cref="LedgerBuilder"/> counts them.</summary>
/// <param name="Rows">What takes memory, on the device and on the host.</param>
/// <param name="Rung">What was given up.</param>
/// <param name="Fits">Whether there is room for it, with a margin.</param>
internal sealed record MemoryPlan(IReadOnlyList<LedgerRow> Rows, Rung Rung, bool Fits)
{
    /// <summary>Rows' names, shared with the meter.</summary>
    public const string Context = "CUDA context",
        Weights = "weights",
        Slots = "streaming slots",
        Scratch = "expanded weight",
        TrainedWeights = "trained weights",
        Adapters = "adapters",
        Gradients = "gradients",
        Optimizer = "optimizer",
        Activations = "activations",
        WorkingSet = "working set",
        Evaluation = "evaluation",
        Fragmentation = "rounding and gaps",
        HostActivations = "activations on the host",
        HostOptimizer = "optimizer on the host",
        HostWeights = "streamed weights",
        Staging = "staging buffers";

    /// <summary>The row of the weights that are trained: the model's own, or the adapters.</summary>
    public static string TrainedRow(AdapterKind kind) => kind == AdapterKind.None ? TrainedWeights : Adapters;

    // Left free when a strategy is chosen.
    private const double Margin = 0.02;

    /// <summary>On the device.</summary>
    public long PeakBytes => On("device");

    /// <summary>On the host of a GPU, beyond the program itself.</summary>
    public long HostBytes => On("host");

    /// <summary>Whether the host has room for its part.</summary>
    public bool HostFits { get; init; } = true;

    /// <summary>Trained weights.</summary>
    public long Trained { get; init; }

    /// <summary>Bytes of weights that are streamed.</summary>
    public long Streamed { get; init; }

    /// <summary>Bytes of weights that a rank receives from the others in a forward, and in a backward.</summary>
    public long Gathered { get; init; }

    /// <summary>Whether they lie in a file, the host being too small.</summary>
    public bool Spills { get; init; }

    /// <summary>Bytes of a micro-batch that recomputation keeps on the host.</summary>
    public long KeptOnHost { get; init; }

    /// <summary>The plans of a pipeline's stages, in their order; this one is that of the stage that needs the
    /// most.</summary>
    public IReadOnlyList<MemoryPlan> Stages
    {
        get => field ?? [this];
        private init;
    }

    /// <summary>Device bytes that stay between steps.</summary>
    public long PersistentBytes =>
        Rows.Where(row => row.Place == "device" && IsPersistent(row.Name)).Sum(row => row.Bytes);

    /// <summary>Whether a row's bytes stay on the device between steps.</summary>
    public static bool IsPersistent(string row) =>
        row is Context or Weights or Slots or Scratch or TrainedWeights or Adapters or Gradients or Optimizer;

    /// <summary>The fastest rung that fits; where none does, the smallest.</summary>
    /// <param name="config">The run's settings; what is written in them is kept as written.</param>
    /// <param name="spec">The model.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="longest">Tokens of the longest sequence.</param>
    /// <param name="evaluated">Of the longest one in an evaluation.</param>
    /// <param name="judged">Sequences of an evaluation; null when that is not known.</param>
    public static MemoryPlan For(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int longest,
        int evaluated = 0,
        int? judged = null
    )
    {
        var ladder = Ladder(config, spec, device, longest, evaluated, judged);
        return ladder.FirstOrDefault(plan => plan.Fits) ?? ladder.MinBy(plan => plan.PeakBytes)!;
    }

    /// <summary>Every rung that the settings allow, the fastest first.</summary>
    public static IReadOnlyList<MemoryPlan> Ladder(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int longest,
        int evaluated = 0,
        int? judged = null
    )
    {
        var stages = PipelineStages.Cut(spec, device.Stages, config.Adapter.Kind, longest);
        return
        [
            .. Rung.All(config, spec, device)
                .Select(rung =>
                    Largest([
                        .. stages.Select(stage => Estimate(config, stage, device, longest, rung, evaluated, judged)),
                    ])
                )
                .OrderBy(plan =>
                    CostModel.Seconds(spec, config.Adapter.Kind, plan, device, longest, config.Train.BatchSize)
                )
                .ThenBy(plan => plan.Rung.Strategy)
                .ThenBy(plan => plan.PeakBytes),
        ];
    }

    /// <summary>The plan of the stage of a pipeline that needs the most; it fits where those of all stages
    /// do.</summary>
    private static MemoryPlan Largest(IReadOnlyList<MemoryPlan> stages) =>
        stages.Count == 1
            ? stages[0]
            : stages.MaxBy(plan => plan.PeakBytes)! with
            {
                Stages = stages,
                HostFits = stages.All(plan => plan.HostFits),
                Fits = stages.All(plan => plan.Fits),
                Spills = stages.Any(plan => plan.Spills),
            };

    /// <summary>The plan of one rung for a model, or for a stage of it.</summary>
    internal static MemoryPlan Estimate(
        RunConfig config,
        ModelSpec spec,
        PlanDevice device,
        int longest,
        Rung rung,
        int evaluated = 0,
        int? judged = null
    ) =>
        new LedgerBuilder(config, spec, device, rung)
            .AddModel()
            .AddTraining()
            .AddBatch(longest)
            .AddEvaluation(evaluated, judged)
            .AddFragmentation()
            .AddHost()
            .Build();

    /// <summary>Whether a plan fits into so many bytes of device memory, with a margin.</summary>
    public static bool FitsInto(long peak, long? budget) => budget is null || peak <= budget * (1 - Margin);

    /// <summary>Device bytes that a run may take.</summary>
    public static long? Budget(RunConfig config, PlanDevice device) =>
        config.Memory.BudgetGiB is { } gib
            ? Math.Min((long)(gib * (1L << 30)), device.FreeBytes ?? long.MaxValue)
            : device.FreeBytes;

    private long On(string place) => Rows.Where(row => row.Place == place).Sum(row => row.Bytes);
}
