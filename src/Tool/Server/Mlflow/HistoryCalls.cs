using System.Globalization;
using System.Text.Json.Nodes;
using Memopt.Tracking;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Calls on the values of metrics.</summary>
internal sealed class HistoryCalls(LiteRunStore store, RunArtifacts artifacts)
{
    /// <summary>What of several runs is asked for.</summary>
    /// <param name="Ids">The runs.</param>
    /// <param name="Key">The metric.</param>
    /// <param name="Most">About so many values a run.</param>
    /// <param name="First">The first step; null, as the last, for all.</param>
    /// <param name="Last">The last step.</param>
    private sealed record Interval(IReadOnlyList<string> Ids, string Key, int Most, long? First, long? Last)
    {
        public bool Has(Point point) => First is null || (point.Step >= First && point.Step <= Last);
    }

    public JsonObject Get(MlflowRequest request)
    {
        var (run, key) = (artifacts.Known(request.RunId), request.Required("metric_key"));
        var from = ExperimentCalls.Page(request) is { } page
            ? int.TryParse(page, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
                ? number
                : throw new MlflowFault(MlflowFault.Invalid, $"Invalid page token: {page}")
            : 0;
        var points = Points(run.Start.Id, key);
        var many = request.Count("max_results", int.MaxValue, int.MaxValue);
        var answer = new JsonObject
        {
            ["metrics"] = Answers.List(points.Skip(from).Take(many), point => Answers.Metric(key, point)),
        };
        if (points.Count - from > many)
            answer["next_page_token"] = (from + many).ToString(CultureInfo.InvariantCulture);
        return answer;
    }

    /// <summary>Curves of several runs, thinned evenly to what a chart shows; first and last steps are always
    /// there.</summary>
    public JsonObject GetSeveral(MlflowRequest request)
    {
        var asked = Asked(request);
        var curves = asked.Ids.Select(id => (Id: id, Points: PointsOf(id, asked))).ToList();
        var shown = Thinned([.. curves.Select(curve => curve.Points)], asked.Most);
        return new()
        {
            ["metrics"] = Answers.List(
                curves.SelectMany(curve =>
                    curve
                        .Points.Where(point => shown.Contains(point.Step))
                        .Select(point => (curve.Id, Metric: Answers.Metric(asked.Key, point)))
                ),
                one =>
                {
                    one.Metric["run_id"] = one.Id;
                    return one.Metric;
                }
            ),
        };
    }

    private static Interval Asked(MlflowRequest request)
    {
        var (ids, key, most) = (
            request.Texts("run_ids"),
            request.Required("metric_key"),
            request.Count("max_results", Limits.HistoryPerRun, Limits.HistoryPerRun)
        );
        if (ids.Count is 0 or > Limits.HistoryRuns)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"GetMetricHistoryBulkInterval request must specify from 1 to {Limits.HistoryRuns} run_ids. "
                    + $"Received {ids.Count} run_ids."
            );
        var (first, last) = (request.Integer("start_step"), request.Integer("end_step"));
        if (first is null != last is null)
            throw new MlflowFault(
                MlflowFault.Invalid,
                "If either start step or end step are specified, both must be specified."
            );
        if (first > last)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"end_step must be greater than start_step. Found start_step={first} and end_step={last}."
            );
        return new(ids, key, most, first, last);
    }

    private List<Point> PointsOf(string id, Interval asked)
    {
        artifacts.Known(id);
        return Points(id, asked.Key).FindAll(asked.Has);
    }

    /// <summary>The steps to show: the same of every run, so that curves can be compared point by point.</summary>
    private static HashSet<long> Thinned(IReadOnlyList<List<Point>> curves, int most)
    {
        var steps = curves.SelectMany(points => points).Select(point => point.Step).Distinct().Order().ToList();
        var shown =
            steps.Count <= most
                ? steps.ToHashSet()
                :
                [
                    .. Enumerable
                        .Range(0, most)
                        .Select(i => steps[(int)((long)i * (steps.Count - 1) / Math.Max(1, most - 1))]),
                ];
        foreach (var points in curves.Where(points => points.Count > 0))
            shown.UnionWith([points[0].Step, points[^1].Step]);
        return shown;
    }

    /// <summary>A value that a client sent twice, since an answer was lost, is one.</summary>
    private List<Point> Points(string id, string key) => [.. store.Points(id, key).Distinct()];
}
