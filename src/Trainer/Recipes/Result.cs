using Memopt.Tracking;

namespace Memopt.Trainer.Recipes;

/// <summary>How a fine-tune ended.</summary>
/// <param name="RunId">In the store.</param>
/// <param name="Status">Finished, or Stopped with a checkpoint to go on from.</param>
/// <param name="Steps">Optimizer steps made in all.</param>
/// <param name="Adapter">The folder that holds the result, when finished.</param>
/// <param name="Score">The last evaluation, when there is evaluation data.</param>
/// <param name="UpToDate">Whether nothing had to be done.</param>
internal sealed record Result(
    string RunId,
    RunStatus Status,
    int Steps,
    string? Adapter,
    Score? Score,
    bool UpToDate = false
)
{
    /// <summary>The last evaluation's values by name, those of the job's own metrics too; empty when there is
    /// none.</summary>
    public IReadOnlyDictionary<string, double> Eval { get; init; } = new Dictionary<string, double>();

    /// <summary>What was to be in a storage account and is not, with the reason.</summary>
    public IReadOnlyList<PendingUpload> Unsafe { get; init; } = [];
}
