namespace Memopt.Tracking;

/// <summary>What a query found.</summary>
/// <param name="Runs">In the query's order.</param>
/// <param name="Values">For each run, the values of <see cref="RunQuery.Columns"/>: string, double, DateTimeOffset or
/// null.</param>
/// <param name="Next">Asks for the next page; null on the last.</param>
/// <param name="Waiting">Runs that are recorded and still being taken in, so they are not in the answer or not up to
/// date; 0 unless the query has a <see cref="RunQuery.Patience"/>.</param>
public sealed record RunPage(
    IReadOnlyList<Run> Runs,
    IReadOnlyList<IReadOnlyList<object?>> Values,
    string? Next,
    int Waiting = 0
)
{
    /// <summary>Names in the filter or the order that no run has, where that may be why nothing was found or nothing
    /// was ordered: misspelt ones, perhaps.</summary>
    public IReadOnlyList<UnknownName> Unknown { get; init; } = [];
}

/// <summary>A metric, parameter, tag or hash that no run has.</summary>
/// <param name="Name">As in a filter: metrics.los.</param>
/// <param name="Near">Names of its kind that runs have and that are spelt alike, the nearest first.</param>
public sealed record UnknownName(string Name, IReadOnlyList<string> Near);
