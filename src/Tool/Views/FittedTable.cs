using Spectre.Console;
using Spectre.Console.Rendering;

namespace Memopt.Tool.Views;

/// <summary>A table that fits its console. Columns that have no room are left out, those of the highest rank first,
/// and a note below names them. A cell is broken over lines only in a column of prose; an id or a number is whole or
/// not shown. The first column is always shown.
/// </summary>
/// <param name="next">How to see columns that are left out, besides a wider terminal: "--json"; null when there is no
/// other way.</param>
internal sealed class FittedTable(string? next = null) : IRenderable
{
    /// <summary>A prose column keeps at least so many characters of width, and a column costs so many besides its
    /// text.</summary>
    private const int Prose = 20,
        Around = 3;

    private readonly List<Column> columns = [];
    private readonly List<string[]> rows = [];

    private sealed record Column(string Title, bool Right, bool Breaks, int Rank);

    /// <summary>Adds a column.</summary>
    /// <param name="title">Its heading, as markup.</param>
    /// <param name="right">Whether cells are aligned to the right.</param>
    /// <param name="breaks">Whether cells are prose, which may be broken over lines.</param>
    /// <param name="rank">Columns of a high rank are left out first; its place in the table when null.</param>
    public FittedTable AddColumn(string title, bool right = false, bool breaks = false, int? rank = null)
    {
        columns.Add(new(title, right, breaks, rank ?? columns.Count));
        return this;
    }

    /// <summary>Adds a row: a cell for each column, as markup.</summary>
    public void AddRow(params string[] cells) => rows.Add(cells);

    public Measurement Measure(RenderOptions options, int maxWidth) =>
        new(Math.Min(Widths().Sum() + 1, maxWidth), maxWidth);

    public IEnumerable<Segment> Render(RenderOptions options, int maxWidth)
    {
        var widths = Widths();
        var shown = Enumerable.Range(0, columns.Count).ToList();
        while (shown.Count > 1 && shown.Sum(Least) + 1 > maxWidth)
            shown.Remove(shown.Skip(1).MaxBy(column => (columns[column].Rank, column)));
        // Prose shares what the whole columns leave.
        var spare = maxWidth - 1 - shown.Sum(Least);
        var table = new Table().Border(TableBorder.Simple);
        foreach (var column in shown)
        {
            var more = Math.Clamp(spare, 0, widths[column] - Least(column));
            spare -= more;
            var (title, right, breaks, _) = columns[column];
            var width = Least(column) + more - Around;
            table.AddColumn(
                new TableColumn(title)
                {
                    Width = width,
                    NoWrap = !breaks,
                    Alignment = right ? Justify.Right : Justify.Left,
                }
            );
        }
        rows.ForEach(row => table.AddRow([.. shown.Select(column => row[column])]));
        // An id that is wider than the console goes beyond its edge: half an id is none.
        var segments = ((IRenderable)table).Render(options, Math.Max(maxWidth, shown.Sum(Least) + 1));
        return shown.Count == columns.Count
            ? segments
            : segments.Concat(((IRenderable)new Spectre.Console.Text(Note(shown, maxWidth))).Render(options, maxWidth));

        int Least(int column) =>
            columns[column].Breaks
                ? Math.Min(widths[column], Around + Math.Max(Prose, Width(columns[column].Title)))
                : widths[column];
    }

    private string Note(List<int> shown, int maxWidth)
    {
        var left = Enumerable
            .Range(0, columns.Count)
            .Except(shown)
            .Select(column => Markup.Remove(columns[column].Title).Trim())
            .Select(title => title.Length > 0 ? title : "(untitled)")
            .Distinct();
        return $"{maxWidth} columns leave no room for: {string.Join(", ", left)}. To see them: a wider terminal, "
            + $"or a pipe{(next is null ? "" : $", or {next}")}.\n";
    }

    /// <summary>What each column takes when nothing is broken or left out.</summary>
    private int[] Widths() =>
        [.. columns.Select((column, at) => Around + rows.Select(row => row[at]).Prepend(column.Title).Max(Width))];

    private static int Width(string markup) => Markup.Remove(markup).Split('\n').Max(line => line.GetCellWidth());
}
