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
        var points = curves
            .Select(curve =>
                curve
                    .Points.Select(point => (point.Step, Value: logarithmic ? Math.Log10(point.Value) : point.Value))
                    .Where(point => double.IsFinite(point.Value))
                    .ToList()
            )
            .ToList();
        var all = points.SelectMany(curve => curve).ToList();
        if (all.Count == 0)
        {
            yield return new("no finite values to draw");
            yield return Segment.LineBreak;
            yield break;
        }
        var (left, right, low, high) = (
            all.Min(point => point.Step),
            all.Max(point => point.Step),
            all.Min(point => point.Value),
            all.Max(point => point.Value)
        );
        var cells = new int?[Height, width];
        for (var curve = 0; curve < points.Count; curve++)
        {
            // The mean of the points in a column: what a curve of more points than columns looks like.
            foreach (
                var column in points[curve]
                    .GroupBy(point =>
                        right == left ? 0 : (int)((double)(point.Step - left) / (right - left) * (width - 1))
                    )
            )
                cells[
                    high == low
                        ? Height / 2
                        : Height
                            - 1
                            - (int)
                                Math.Round((column.Average(point => point.Value) - low) / (high - low) * (Height - 1)),
                    column.Key
                ] = curve;
        }
        for (var row = 0; row < Height; row++)
        {
            var value = high - (high - low) * row / (Height - 1);
            var label =
                row % 5 == 0
                    ? (logarithmic ? Math.Pow(10, value) : value).ToString("G4", CultureInfo.InvariantCulture)
                    : "";
            yield return new(label.PadLeft(Margin - 2) + " │");
            for (var column = 0; column < width; column++)
                yield return cells[row, column] is { } curve ? new(Letter(curve), new Style(Of(curve))) : new(" ");
            yield return Segment.LineBreak;
        }
        yield return new(new string(' ', Margin - 1) + "└" + new string('─', width));
        yield return Segment.LineBreak;
        yield return new(
            new string(' ', Margin)
                + left.ToString(CultureInfo.InvariantCulture)
                + right
                    .ToString(CultureInfo.InvariantCulture)
                    .PadLeft(width - left.ToString(CultureInfo.InvariantCulture).Length)
        );
        yield return Segment.LineBreak;
        for (var curve = 0; curve < curves.Count; curve++)
        {
            yield return new($"{new string(' ', Margin)}{Letter(curve)} {curves[curve].Name}", new Style(Of(curve)));
            yield return Segment.LineBreak;
        }
    }

    private static string Letter(int curve) => ((char)('a' + curve)).ToString();

    private static Color Of(int curve) => colors[curve % colors.Length];
}
