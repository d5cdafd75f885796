using System.Text.Json.Serialization;

namespace Memopt.Tracking;

/// <summary>One version of a registered adapter.</summary>
/// <param name="Number">From 1; never given again. Final once it is in the storage account, if there is one.</param>
/// <param name="Hash">Its content: an artifact's hash.</param>
/// <param name="Bytes">Sum of its files.</param>
/// <param name="Run">The run that made it, or null for one from elsewhere.</param>
/// <param name="Created">When it was registered.</param>
/// <param name="Metrics">Last values of the run's metrics at that time, by name.</param>
/// <param name="Best">How versions are compared from here on: <c>min(eval_loss)</c>, <c>max(eval_accuracy)</c>.</param>
/// <param name="Removed">When it was taken off the registry, or null.</param>
/// <param name="Data">sha256 of the evaluation data that its metrics were measured on; null when the run had none, and
/// of versions of older tools.</param>
public sealed record AdapterVersion(
    int Number,
    string Hash,
    long Bytes,
    string? Run,
    DateTimeOffset Created,
    IReadOnlyDictionary<string, double> Metrics,
    string Best,
    DateTimeOffset? Removed = null,
    string? Data = null
)
{
    [JsonIgnore]
    internal (string, string?) Key => (Hash, Run);

    [JsonIgnore]
    internal DateTimeOffset Changed => Removed is { } removed && removed > Created ? removed : Created;
}
