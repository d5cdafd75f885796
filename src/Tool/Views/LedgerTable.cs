using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>The memory ledger, estimated beside measured.</summary>
internal static class LedgerTable
{
    public static FittedTable Of(IReadOnlyList<LedgerRow> rows, bool measured)
    {
        var table = new FittedTable("--json").AddColumn("memory").AddColumn("on").AddColumn("estimate", right: true);
        if (measured)
            table.AddColumn("measured", right: true);
        table.AddColumn("from", breaks: true);
        foreach (var row in rows)
        {
            List<string> cells = [Markup.Escape(row.Name), Markup.Escape(row.Place), Size(row.Bytes)];
            if (measured)
                cells.Add(row.Measured is { } bytes ? Size(bytes) : "–");
            table.AddRow([.. cells.Append(Markup.Escape(row.Why))]);
        }
        foreach (var place in rows.GroupBy(row => row.Place))
        {
            List<string> total =
            [
                "[bold]total[/]",
                Markup.Escape(place.Key),
                $"[bold]{Size(place.Sum(row => row.Bytes))}[/]",
            ];
            if (measured)
                total.Add(
                    place.Any(row => row.Measured is not null)
                        ? $"[bold]{Size(place.Sum(row => row.Measured ?? 0))}[/]"
                        : "–"
                );
            table.AddRow([.. total.Append("")]);
        }
        return table;
    }

    public static string Size(long bytes) =>
        bytes >= 1L << 30 ? $"{bytes / 1073741824.0:F2} GiB"
        : bytes >= 1 << 20 ? $"{bytes / 1048576.0:F1} MiB"
        : $"{bytes / 1024.0:F1} KiB";
}
