namespace Memopt.Trainer.Data;

/// <summary>What became of rows on their way to tokens.</summary>
/// <param name="Rows">Sequences to train on.</param>
/// <param name="Tokens">Their tokens.</param>
/// <param name="Trained">Tokens that carry loss.</param>
/// <param name="Truncated">Rows that were cut at data.maxLength.</param>
/// <param name="Dropped">Rows that were left out for their length.</param>
/// <param name="Split">Rows that were made several of.</param>
/// <param name="Rejected">Rows that were left out because their label says that the answer is a bad one.</param>
/// <param name="Longest">Tokens of the longest sequence.</param>
/// <param name="Highest">Largest token id or label.</param>
internal readonly record struct DataCounts(
    long Rows,
    long Tokens,
    long Trained,
    long Truncated,
    long Dropped,
    long Split,
    long Rejected,
    int Longest,
    int Highest
)
{
    public static DataCounts operator +(DataCounts a, DataCounts b) =>
        new(
            a.Rows + b.Rows,
            a.Tokens + b.Tokens,
            a.Trained + b.Trained,
            a.Truncated + b.Truncated,
            a.Dropped + b.Dropped,
            a.Split + b.Split,
            a.Rejected + b.Rejected,
            Math.Max(a.Longest, b.Longest),
            Math.Max(a.Highest, b.Highest)
        );
}
