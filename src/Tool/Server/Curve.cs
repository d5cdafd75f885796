using Memopt.Tracking;

namespace Memopt.Tool.Server;

/// <summary>A metric's points, few enough to draw.</summary>
/// <param name="Count">Points there are of which these were taken.</param>
/// <param name="Steps">Of each point that is kept.</param>
/// <param name="Values">Likewise; NaN and infinities are kept.</param>
/// <param name="Times">Milliseconds since 1970, UTC.</param>
internal sealed record Curve(
    int Count,
    IReadOnlyList<long> Steps,
    IReadOnlyList<double> Values,
    IReadOnlyList<long> Times
)
{
    /// <summary>At most <paramref name="most"/> points: of each of as many stretches of equal length the least, the
    /// greatest, and the first that is no number, so that no spike and no NaN is lost; and the last point, so that a
    /// curve ends where the run is.
    /// </summary>
    public static Curve Downsample(IReadOnlyList<Point> points, int most)
    {
        if (points.Count <= most)
            return Take(points.Count, points);
        var buckets = Math.Max(1, (most - 1) / 3);
        var kept = new List<Point>(most);
        for (var bucket = 0; bucket < buckets; bucket++)
        {
            var (start, end) = (
                (int)((long)bucket * points.Count / buckets),
                (int)((long)(bucket + 1) * points.Count / buckets)
            );
            var (least, greatest, broken) = (-1, -1, -1);
            for (var i = start; i < end; i++)
            {
                if (!double.IsFinite(points[i].Value))
                    broken = broken < 0 ? i : broken;
                else
                    (least, greatest) = (
                        least < 0 || points[i].Value < points[least].Value ? i : least,
                        greatest < 0 || points[i].Value > points[greatest].Value ? i : greatest
                    );
            }
            kept.AddRange(
                new[] { least, greatest, broken }.Where(i => i >= 0).Distinct().Order().Select(i => points[i])
            );
        }
        if (kept[^1] != points[^1])
            kept.Add(points[^1]);
        return Take(points.Count, kept);
    }

    private static Curve Take(int count, IReadOnlyList<Point> points) =>
        new(
            count,
            [.. points.Select(point => point.Step)],
            [.. points.Select(point => point.Value)],
            [.. points.Select(point => point.Time)]
        );
}
