namespace Memopt.Tool.Views;

/// <summary>How a combination of a sweep has ended.</summary>
/// <param name="Number">The combination's number, from 1.</param>
/// <param name="Total">Combinations of the sweep.</param>
/// <param name="Status">finished, stopped or failed.</param>
/// <param name="Metric">The name of the sweep's metric.</param>
internal sealed record TrialEnd(int Number, int Total, string Status, string Metric)
{
    /// <summary>The recorded run; null when it did not begin.</summary>
    public string? RunId { get; init; }

    /// <summary>The metric's value; null when there is none.</summary>
    public double? Value { get; init; }

    /// <summary>Why it failed, or null.</summary>
    public string? Reason { get; init; }
}
