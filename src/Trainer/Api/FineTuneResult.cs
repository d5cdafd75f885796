using Memopt.Tracking;

namespace Memopt;

/// <summary>How a training ended.</summary>
/// <param name="RunId">Of the run in the store.</param>
/// <param name="Status">Finished, or Stopped with a checkpoint to go on from.</param>
/// <param name="Steps">Optimizer steps made in all.</param>
/// <param name="AdapterFolder">The folder that holds the result, in PEFT's layout; null when stopped.</param>
/// <param name="Metrics">The evaluation's values by name: loss, perplexity, accuracy, tokens, and those of
/// <see cref="FineTune.WithMetric"/>. Empty without rows to evaluate on.</param>
/// <param name="UpToDate">Whether the same had been trained already, so that nothing was done.</param>
public sealed record FineTuneResult(
    string RunId,
    RunStatus Status,
    int Steps,
    string? AdapterFolder,
    IReadOnlyDictionary<string, double> Metrics,
    bool UpToDate
)
{
    /// <summary>Loss on the evaluation rows, nats a token; null without such rows.</summary>
    public double? Loss => Metrics.TryGetValue("loss", out var loss) ? loss : null;

    /// <summary>Share of the evaluation's answers that the model gives exactly; null without such rows.</summary>
    public double? Accuracy => Metrics.TryGetValue("accuracy", out var accuracy) ? accuracy : null;
}
