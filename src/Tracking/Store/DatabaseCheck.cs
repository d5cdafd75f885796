namespace Memopt.Tracking;

/// <summary>Compares a database with the spools that it was made from.</summary>
internal static class DatabaseCheck
{
    /// <summary>What does not add up, or null.</summary>
    public static string? FindInconsistency(RunDatabase db, Spool spool)
    {
        // An id that was damaged, or its place in the index, hides a run from all who ask for it.
        foreach (var id in spool.Segments(all: true).Select(segment => segment.Run).Distinct())
        {
            if (db.Runs.Find(id, withDetails: false) is null && !spool.Alive(id) && spool.Begun(id))
                return $"run {id} is not in it";
        }
        foreach (var run in db.Runs.Heads())
        {
            if (spool.Find(run.Id, 0) is null)
                return $"it has a run {run.Id}, of which there is no spool";
            db.Runs.LoadDetails(run);
            if (!run.Agrees())
                return $"what it says of run {run.Id} is not what the run began and ended with";
            foreach (var (name, metric) in run.Metrics)
            {
                if (FindInconsistency(db.Points, run, name, metric) is { } problem)
                    return problem;
            }
        }
        return null;
    }

    private static string? FindInconsistency(PointChunks points, RunRecord run, string name, RunRecord.Metric metric)
    {
        var sum = new RunRecord.Metric(metric.Number);
        foreach (var point in points.ReadAsWritten(run, metric))
            sum.Add(point); // in the order in which they came: the sums are the same to the bit
        if (sum.Count != metric.Count)
            return $"run {run.Id} has {sum.Count} points of {name}, and should have {metric.Count}";
        if (sum.Summary != metric.Summary)
            return $"run {run.Id} has other points of {name} than were recorded";
        return null;
    }
}
