using Memopt.Trainer.Config;

namespace Memopt.Trainer.Data.Loading;

/// <summary>What data.maxLength and data.truncate make of a row.</summary>
internal static class RowLength
{
    /// <summary>
    /// The parts of a row that data.maxLength and data.truncate leave: itself, when it is short enough; none, when it
    /// is left out.
    /// </summary>
    public static IReadOnlyList<Row> Cut(Row row, DataConfig config)
    {
        var (longest, length) = (config.MaxLength, row.Ids.Length);
        return length <= longest
            ? [row]
            : config.Truncate switch
            {
                Truncation.Drop => [],
                Truncation.Right => [Part(0, longest)],
                Truncation.Left => [Part(length - longest, length)],
                _ =>
                [
                    .. Enumerable
                        .Range(0, (length + longest - 1) / longest)
                        .Select(part => Part(part * longest, Math.Min(length, (part + 1) * longest))),
                ],
            };

        Row Part(int from, int to) => new(row.Ids[from..to], row.Labels[from..to], row.Line);
    }

    /// <summary>The fault of a row of which nothing is left to train on.</summary>
    public static RowFault NothingLeft(DataConfig config) =>
        new("all tokens that carry loss are cut off", $"the row is longer than data.maxLength = {config.MaxLength}");

    /// <summary>Refuses a row in which no token carries loss.</summary>
    public static void CheckTrained(Row row)
    {
        if (row.TargetCount == 0)
            throw new RowFault(
                "no token of this row carries loss",
                "it needs an assistant's turn, a completion, or labels other than -100 after the first"
            );
    }
}
