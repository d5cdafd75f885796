namespace Memopt.Tracking;

/// <summary>How a run ended.</summary>
public sealed record Outcome(RunStatus Status, string? Reason = null)
{
    public DateTimeOffset Ended { get; init; }

    /// <summary>The ledger again, with measured bytes.</summary>
    public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];
}
