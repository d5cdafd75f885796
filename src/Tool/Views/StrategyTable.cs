using Memopt.Trainer.Plan;

namespace Memopt.Tool.Views;

/// <summary>What each strategy needs and reaches on a card, for people.</summary>
internal static class StrategyTable
{
    public static FittedTable Of(IReadOnlyList<Strategy> strategies)
    {
        var table = new FittedTable("--json")
            .AddColumn("strategy")
            .AddColumn("peak", right: true)
            .AddColumn("", rank: 1)
            .AddColumn("speed", right: true)
            .AddColumn("longest sequence", right: true)
            .AddColumn("largest micro-batch", right: true);
        foreach (var s in strategies)
        {
            table.AddRow(
                s.Name,
                LedgerTable.Size(s.PeakBytes),
                s.Fits ? "[green]fits[/]" : "[red]too large[/]",
                $"{s.RelativeSpeed:F2}",
                $"{s.MaxSequence:N0}",
                $"{s.MaxMicroBatch:N0}"
            );
        }
        return table;
    }
}
