namespace Memopt.Tracking;

/// <summary>A query for runs whose filter, order and columns were read.</summary>
internal sealed class RunSearch
{
    private readonly RunQuery query;
    private readonly Experiments experiments;
    private readonly Filter filter;
    private readonly List<Operand> columns;
    private readonly Filter.Place? after;
    private readonly HashSet<string> deletedExperiments;
    private readonly Dictionary<string, string> experimentIds = [];

    /// <exception cref="QueryException">The filter, the order, a column or the page cannot be read.</exception>
    public RunSearch(RunQuery query, Experiments experiments)
    {
        (this.query, this.experiments) = (query, experiments);
        filter = FilterParser.Parse(query.Filter, query.Stop).Then(query.Order);
        columns = [.. query.Columns.Select(FilterParser.Column)];
        after = query.Page is null ? null : Filter.Place.Parse(query.Page);
        deletedExperiments = query.Deleted is null ? [] : experiments.Gone();
    }

    /// <summary>One page of what a database has.</summary>
    /// <param name="db">Where to look.</param>
    /// <param name="waiting">Runs that are not ingested yet.</param>
    public RunPage Page(RunDatabase db, int waiting)
    {
        var matching = db
            .Runs.Heads(query.Stop)
            .Where(IsMeant)
            .Select(run => new FilterTarget(run, (metric, step) => ValueAt(db, run, metric, step), ExperimentId))
            .Where(filter.Matches);
        // Without an order of its own a query reads no further than its page; with one it keeps no more than that.
        if (after is not null)
            matching = matching.Where(subject => filter.Compare(filter.Of(subject), after) > 0);
        var most = (int)Math.Min(query.Limit + 1L, int.MaxValue); // one more tells whether there is a next page
        var found = filter.Order.Count == 0 ? matching.Take(most).ToList() : First(matching, most);
        var page = found.Take(query.Limit).ToList();
        var values = page.Select(Values).ToList();
        foreach (var subject in page)
            db.Runs.LoadDetails(subject.Run);
        return new RunPage(
            [.. page.Select(subject => subject.Run.ToRun())],
            values,
            found.Count > page.Count && page.Count > 0 ? filter.Of(page[^1]).ToString() : null,
            waiting
        )
        {
            Unknown =
                waiting > 0 || !MayBeMisspelt(found) ? [] : Spelling.Unknown(filter.Names, db.Runs.Heads(query.Stop)),
        };
    }

    /// <summary>Whether a run meets the query's conditions beside its filter.</summary>
    private bool IsMeant(RunRecord run) =>
        (query.Experiment is null || run.Experiment == query.Experiment)
        && (query.Experiments is null || query.Experiments.Contains(run.Experiment))
        && (query.Deleted is not { } deleted || IsDeleted(run) == deleted)
        && (query.Status is null || run.Status == query.Status)
        && query.Tags.All(tag => run.Tags.TryGetValue(tag.Key, out var value) && value == tag.Value);

    private bool IsDeleted(RunRecord run) =>
        deletedExperiments.Contains(run.Experiment) || run.Tags.ContainsKey(Run.DeletedTag);

    private string ExperimentId(string name) =>
        experimentIds.TryGetValue(name, out var id) ? id : experimentIds[name] = experiments.Of(name).Id;

    /// <summary>The last value that a metric has at a step; null where it has none.</summary>
    private static double? ValueAt(RunDatabase db, RunRecord run, string metric, long step)
    {
        var there = db
            .Points.Read(run, metric, step == long.MinValue ? null : step - 1)
            .TakeWhile(point => point.Step == step)
            .ToList();
        return there.Count == 0 ? null : there[^1].Value;
    }

    private IReadOnlyList<object?> Values(FilterTarget subject) =>
        [
            .. columns.Select(column =>
                column.Read(subject) switch
                {
                    string[] several => string.Join(", ", several),
                    double time when column.Kind == OperandKind.Time => DateTimeOffset.FromUnixTimeMilliseconds(
                        (long)time
                    ),
                    var value => value,
                }
            ),
        ];

    /// <summary>Whether a name that no run has may be why nothing was found, or nothing ordered.</summary>
    private bool MayBeMisspelt(List<FilterTarget> found) => found.Count == 0 || filter.Of(found[0]).Keys.Contains(null);

    /// <summary>The first so many in the filter's order.</summary>
    private List<FilterTarget> First(IEnumerable<FilterTarget> subjects, int count)
    {
        var best = new PriorityQueue<FilterTarget, Filter.Place>(
            Comparer<Filter.Place>.Create((a, b) => filter.Compare(b, a))
        );
        foreach (var subject in subjects)
        {
            best.Enqueue(subject, filter.Of(subject));
            if (best.Count > count)
                best.Dequeue();
        }
        var found = new List<FilterTarget>(best.Count);
        while (best.TryDequeue(out var last, out _))
            found.Add(last);
        found.Reverse();
        return found;
    }
}
