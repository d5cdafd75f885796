namespace Memopt.Tracking;

/// <summary>Ingests spools into a database, and seals the segments that are complete and in it.</summary>
internal sealed class SpoolIngestor(RunDatabase db, Spool spool)
{
    private const int Window = 4 << 20;

    /// <summary>Most runs that are ingested at once: to seal so many takes about as long as a turn.</summary>
    private const int MostInLot = 1024;

    private int uncommitted;
    private bool changed;

    /// <summary>Ingests what the spools had when they were looked at, and returns what was left of it when time ran
    /// out: to begin with that again would cost all the time there is once many runs wait. What writers add meanwhile
    /// is the next query's: it could come faster than it is ingested. Goes beyond its time by one lot at most.
    /// </summary>
    /// <param name="news">What there may be to ingest.</param>
    /// <param name="until">When to end, as <see cref="Environment.TickCount64"/>.</param>
    public IReadOnlyList<Spool.PendingSegment> Ingest(IReadOnlyList<Spool.PendingSegment> news, long until)
    {
        var left = new Queue<IGrouping<string, Spool.PendingSegment>>(news.GroupBy(one => one.Segment.Run));
        do IngestLot(left, until);
        while (left.Count > 0 && Environment.TickCount64 <= until);
        if (left.Count == 0 && !db.Complete)
            db.MarkComplete();
        return [.. left.SelectMany(run => run)];
    }

    /// <summary>What there may be to ingest, the runs that were written last first.</summary>
    /// <param name="about">Which runs are asked for: they come before all others. Null for all.</param>
    public IReadOnlyList<Spool.PendingSegment> FindPending(Predicate<string>? about = null) =>
        WithoutIngested(spool.FindPending(all: !db.Complete, about));

    /// <summary>News without the sealed segments that are ingested already: while a database is made anew they lie
    /// beside those that are not, and each query would begin with them.
    /// </summary>
    private IReadOnlyList<Spool.PendingSegment> WithoutIngested(IReadOnlyList<Spool.PendingSegment> news)
    {
        if (db.Complete)
            return news;
        var reached = db.Runs.Reached();
        return [.. news.Where(one => !Ingested(one.Segment))];

        bool Ingested(Spool.Segment segment) =>
            segment.Sealed
            && reached.TryGetValue(segment.Run, out var at)
            && (segment.Number < at.Segment || segment.Number == at.Segment && segment.Holds(at.Offset));
    }

    /// <summary>Ingests the next runs at once: each wait for the disk costs more than to ingest a run. All of a lot
    /// are on the disk before their spools leave their place.
    /// </summary>
    private void IngestLot(Queue<IGrouping<string, Spool.PendingSegment>> left, long until)
    {
        var sealing = new List<Spool.Segment>();
        changed = false;
        try
        {
            for (var runs = 0; runs < MostInLot && left.TryPeek(out var run); runs++)
            {
                if (!IngestRun(run, sealing, until))
                    return;
                left.Dequeue();
                if (Environment.TickCount64 > until)
                    return;
            }
        }
        finally
        {
            Commit();
            if (changed)
                db.Transaction.Checkpoint(); // on the disk, before a spool leaves its place
            if (!db.Transaction.RolledBack)
                spool.Seal(sealing);
        }
    }

    /// <summary>Ingests what is pending of a run, and adds the segments that can be sealed then. False when time ran
    /// out before its end.</summary>
    private bool IngestRun(IGrouping<string, Spool.PendingSegment> run, List<Spool.Segment> sealing, long until)
    {
        // Looked at before the lines are: once it is gone nothing more comes.
        var alive = spool.Alive(run.Key);
        var record = db.Runs.Find(run.Key) ?? db.Runs.New(run.Key);
        foreach (var (known, length) in run)
        {
            if (known.Number < record.Segment || spool.Find(known.Run, known.Number) is not { } segment)
                continue;
            if (!IngestSegment(record, segment, alive && !segment.Sealed ? length : long.MaxValue, until))
                return false;
        }
        if (!alive && record.Status == RunStatus.Running && record.StartJson is not null)
        {
            record.Status = RunStatus.Interrupted;
            db.Transaction.Begin();
            db.Runs.SaveHead(record);
            changed = true;
        }
        sealing.AddRange(
            run.Select(one => one.Segment)
                .Where(segment =>
                    !segment.Sealed && File.Exists(segment.File) && (!alive || segment.Number < record.Segment)
                )
        );
        return true;
    }

    /// <summary>Ingests a segment up to a length, a window at a time, each in one transaction with the offset it
    /// reaches: a kill between them repeats nothing. A transaction waits for the disk, so short segments share one.
    /// False when time ran out before the end.
    /// </summary>
    private bool IngestSegment(RunRecord record, Spool.Segment segment, long length, long until)
    {
        if (segment.Number > record.Segment)
            (record.Segment, record.Offset) = (segment.Number, 0);
        if (!segment.Sealed)
            length = Math.Min(length, new FileInfo(segment.File).Length);
        if (length <= record.Offset)
            return true;
        using var source = segment.Read(record.Offset);
        var buffer = new byte[(int)Math.Min(Window, length - record.Offset)];
        var held = 0;
        while (true)
        {
            var read = Fill(
                source,
                buffer.AsSpan(held, (int)Math.Min(buffer.Length - held, length - record.Offset - held)),
                segment.Sealed
            );
            held += read;
            var whole = buffer.AsSpan(0, held).LastIndexOf((byte)'\n') + 1;
            if (whole > 0)
            {
                IngestLines(record, buffer.AsSpan(0, whole));
                buffer.AsSpan(whole, held - whole).CopyTo(buffer);
                held -= whole;
            }
            if (read == 0 || record.Offset + held >= length)
                return true;
            if (Environment.TickCount64 > until)
                return false;
            if (held == buffer.Length)
                Array.Resize(ref buffer, buffer.Length * 2); // a line longer than the window
        }
    }

    private void IngestLines(RunRecord record, ReadOnlySpan<byte> lines)
    {
        db.Transaction.Begin();
        try
        {
            var batch = new SpoolBatch(db.Points, record);
            batch.Add(lines);
            record.Offset += lines.Length;
            if (record.StartJson is not null)
            {
                db.Runs.SaveHead(record);
                if (batch.ChangedDetails)
                    db.Runs.SaveDetails(record);
            }
        }
        catch
        {
            db.Transaction.Rollback();
            throw;
        }
        changed = true;
        uncommitted += lines.Length;
        if (uncommitted >= Window)
            Commit();
    }

    private void Commit()
    {
        uncommitted = 0;
        db.Transaction.Commit();
    }

    /// <summary>Reads what there is; a compressed file that ends early or is damaged gives what comes before.</summary>
    private static int Fill(Stream source, Span<byte> target, bool compressed)
    {
        var filled = 0;
        try
        {
            int read;
            while (filled < target.Length && (read = source.Read(target[filled..])) > 0)
                filled += read;
        }
        catch (Exception e) when (compressed && e is InvalidDataException or EndOfStreamException)
        {
            // runs doctor says so, and which file it was.
        }
        return filled;
    }
}
