namespace Memopt.Tracking;

/// <summary>One optimizer step. <see cref="Step"/> counts from 1. In the store its fields are metrics: loss,
/// learning_rate, grad_norm, tokens, tokens_per_second, memory_bytes, seconds.</summary>
/// <param name="Step">Optimizer step, from 1.</param>
/// <param name="Loss">Mean over the step's trained tokens, nats.</param>
/// <param name="LearningRate">The rate the step was made with.</param>
/// <param name="GradNorm">Global L2 norm before clipping.</param>
/// <param name="Tokens">Trained tokens of the step.</param>
/// <param name="TokensPerSecond">All tokens computed, padding left out, per second.</param>
/// <param name="MemoryBytes">Peak bytes of live tensors (device memory on a GPU) up to the step.</param>
/// <param name="Seconds">Wall time of the step.</param>
public sealed record StepRow(
    int Step,
    double Loss,
    double LearningRate,
    double GradNorm,
    long Tokens,
    double TokensPerSecond,
    long MemoryBytes,
    double Seconds
)
{
    internal const string LossMetric = "loss";

    private const string learningRate = "learning_rate",
        gradNorm = "grad_norm",
        tokens = "tokens",
        tokensPerSecond = "tokens_per_second",
        memoryBytes = "memory_bytes",
        seconds = "seconds";

    /// <summary>Names of the metrics, in the order in which they are written.</summary>
    internal static IReadOnlyList<string> MetricNames { get; } =
    [LossMetric, learningRate, gradNorm, tokens, tokensPerSecond, memoryBytes, seconds];

    /// <summary>The step as metrics, in the order of <see cref="MetricNames"/>.</summary>
    internal (string Name, double Value)[] Metrics() =>
        [
            (LossMetric, Loss),
            (learningRate, LearningRate),
            (gradNorm, GradNorm),
            (tokens, Tokens),
            (tokensPerSecond, TokensPerSecond),
            (memoryBytes, MemoryBytes),
            (seconds, Seconds),
        ];

    /// <summary>The step that has these metrics. A missing rate, norm or time is NaN, any other missing value
    /// 0.</summary>
    /// <param name="step">Optimizer step, from 1.</param>
    /// <param name="read">A metric's value by its name; null where there is none.</param>
    internal static StepRow From(long step, Func<string, double?> read) =>
        new(
            (int)step,
            read(LossMetric) ?? 0,
            read(learningRate) ?? double.NaN,
            read(gradNorm) ?? double.NaN,
            (long)(read(tokens) ?? 0),
            read(tokensPerSecond) ?? double.NaN,
            (long)(read(memoryBytes) ?? 0),
            read(seconds) ?? double.NaN
        );
}
