namespace Memopt.Tracking;

/// <summary>Reads everything that a store has and says what is wrong; whoever calls holds the store's lock. A repair
/// writes damaged spools anew from the database, and a damaged database anew from the spools; what is replaced stays
/// under another name.
/// </summary>
internal sealed class StoreCheck(StoreFolder folder, SharedDatabase database, bool repair)
{
    private readonly List<StoreProblem> problems = [];

    public IReadOnlyList<StoreProblem> Run(Experiments experiments)
    {
        folder.Spool.Create();
        var damage = FindDamage();
        if (damage is not null)
            problems.Add(new(database.File, damage, repair));
        if (experiments.Check(repair) is { } problem)
            problems.Add(problem);
        CheckSpools(fromDatabase: damage is null);
        CheckStagedFiles();
        if (damage is not null && repair)
            database.SetAside();
        return problems;
    }

    /// <summary>What is wrong with the database, or null.</summary>
    private string? FindDamage()
    {
        try
        {
            using var db = database.Open();
            new SpoolIngestor(db, folder.Spool).Ingest(folder.Spool.FindPending(all: !db.Complete), long.MaxValue);
            return DatabaseCheck.FindInconsistency(db, folder.Spool);
        }
        catch (Exception e) when (e is not (TrackingException or UnauthorizedAccessException or OutOfMemoryException))
        {
            return $"cannot be read: {e.Message}";
        }
    }

    private void CheckSpools(bool fromDatabase)
    {
        foreach (var run in folder.Spool.Segments(all: true).GroupBy(segment => segment.Run))
        {
            var damaged = run.Select(segment => (segment, Fault: SpoolRepair.FindFault(segment)))
                .Where(one => one.Fault is not null)
                .ToList();
            if (damaged.Count == 0)
                continue;
            var repaired = repair && !folder.Spool.Alive(run.Key);
            problems.AddRange(damaged.Select(one => new StoreProblem(one.segment.File, one.Fault!, repaired)));
            if (!repaired)
                continue;
            SpoolRepair.Rewrite(folder.Spool, [.. run], fromDatabase ? database : null);
        }
    }

    private void CheckStagedFiles()
    {
        foreach (var left in Directory.EnumerateFiles(folder.Path, "*.staged", SearchOption.AllDirectories).ToList())
        {
            problems.Add(new(left, "left by a kill", repair));
            if (repair)
                File.Delete(left);
        }
    }
}
