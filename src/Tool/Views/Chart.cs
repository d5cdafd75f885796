using System.Globalization;
using Memopt.Tracking;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Memopt.Tool.Views;

/// <summary>Curves as characters: one letter a run, in its colour where there are colours. Where curves meet the later
/// run's letter stands.</summary>
internal sealed class Chart(IReadOnlyList<(string Name, IReadOnlyList<Point> Points)> curves, bool logarithmic = false)
    : IRenderable
{
    private const int Height = 16,
        Margin = 11;

    private static readonly Color[] colors =
    [
        Color.Blue,
        Color.Orange1,
        Color.Green,
        Color.Red,
        Color.Purple,
        Color.Teal,
    ];

    public Measurement Measure(RenderOptions options, int maxWidth) => new(40, Math.Min(maxWidth, 110));

    public IEnumerable<Segment> Render(RenderOptions options, int maxWidth)
    {
        var width = Math.Clamp(maxWidth, 40, 110) - Margin - 1;
        var drawn = curves.Select(curve => Drawn(curve.Points)).ToList();
        if (drawn.All(points => points.Count == 0))
            return [new("no finite values to draw"), Segment.LineBreak];
        var extent = Extent.Of(drawn);
        return [.. Rows(Cells(drawn, extent, width), extent), .. Axis(extent, width), .. Legend()];
    }

    /// <summary>What of a curve can be drawn, on the chart's scale.</summary>
    private List<Point> Drawn(IReadOnlyList<Point> points) =>
        points
            .Select(point => logarithmic ? point with { Value = Math.Log10(point.Value) } : point)
            .Where(point => double.IsFinite(point.Value))
            .ToList();

    /// <summary>The curve in each cell, or null. A column shows the mean of the points in it: what a curve of more
    /// points than columns looks like.</summary>
    private static int?[,] Cells(List<List<Point>> drawn, Extent extent, int width)
    {
        var cells = new int?[Height, width];
        foreach (var (curve, points) in drawn.Index())
        {
            foreach (var column in points.GroupBy(point => extent.Column(point.Step, width)))
                cells[extent.Row(column.Average(point => point.Value)), column.Key] = curve;
        }
        return cells;
    }

    private IEnumerable<Segment> Rows(int?[,] cells, Extent extent)
    {
        for (var row = 0; row < Height; row++)
        {
            var value = extent.High - (extent.High - extent.Low) * row / (Height - 1);
            var label =
                row % 5 == 0
                    ? (logarithmic ? Math.Pow(10, value) : value).ToString("G4", CultureInfo.InvariantCulture)
                    : "";
            yield return new(label.PadLeft(Margin - 2) + " │");
            for (var column = 0; column < cells.GetLength(1); column++)
                yield return cells[row, column] is { } curve ? new(Letter(curve), new Style(Of(curve))) : new(" ");
            yield return Segment.LineBreak;
        }
    }

    private static IEnumerable<Segment> Axis(Extent extent, int width)
    {
        yield return new(new string(' ', Margin - 1) + "└" + new string('─', width));
        yield return Segment.LineBreak;
        var (left, right) = (
            extent.Left.ToString(CultureInfo.InvariantCulture),
            extent.Right.ToString(CultureInfo.InvariantCulture)
        );
        yield return new(new string(' ', Margin) + left + right.PadLeft(width - left.Length));
        yield return Segment.LineBreak;
    }

    private IEnumerable<Segment> Legend()
    {
        foreach (var (place, curve) in curves.Index())
        {
            yield return new($"{new string(' ', Margin)}{Letter(place)} {curve.Name}", new Style(Of(place)));
            yield return Segment.LineBreak;
        }
    }

    private static string Letter(int curve) => ((char)('a' + curve)).ToString();

    private static Color Of(int curve) => colors[curve % colors.Length];

    /// <summary>The steps and values that the chart spans.</summary>
    private sealed record Extent(long Left, long Right, double Low, double High)
    {
        public static Extent Of(List<List<Point>> drawn)
        {
            var all = drawn.SelectMany(points => points).ToList();
            return new(
                all.Min(point => point.Step),
                all.Max(point => point.Step),
                all.Min(point => point.Value),
                all.Max(point => point.Value)
            );
        }

        public int Column(long step, int width) =>
            Right == Left ? 0 : (int)((double)(step - Left) / (Right - Left) * (width - 1));

        public int Row(double value) =>
            High == Low ? Height / 2 : Height - 1 - (int)Math.Round((value - Low) / (High - Low) * (Height - 1));
    }
}
