namespace Memopt.Tracking;

/// <summary>The database of a store as processes share it: each opens it under the store's lock, ingests what is new in
/// the spools, asks, and closes it. One that is damaged is set aside and made anew from the spools.</summary>
internal sealed class SharedDatabase(StoreFolder folder, TimeProvider clock)
{
    private readonly StoreFolder folder = folder;

    public string File { get; } = Path.Combine(folder.Path, "runs.db");

    /// <summary>How long a query holds the lock to ingest before others may come between, in milliseconds.</summary>
    public int Turn { get; set; } = 1_000;

    /// <summary>Curves read so far.</summary>
    public int PointReads { get; private set; }

    /// <summary>Runs a query over a database that has every complete spool line of the runs it is about; lines of
    /// others are ingested as far as one turn goes.
    /// </summary>
    /// <param name="query">What is asked.</param>
    /// <param name="about">Which ids it is about; null for all runs.</param>
    public T Query<T>(Func<RunDatabase, T> query, Predicate<string>? about = null) =>
        new PendingQuery<T>(this, (db, _) => query(db)) { About = about }.Run();

    /// <summary>Runs a query about all runs that also receives how many of them are not ingested yet when
    /// <paramref name="patience"/> ends; with null it waits for all.</summary>
    public T Query<T>(Func<RunDatabase, int, T> query, TimeSpan? patience, CancellationToken stop) =>
        new PendingQuery<T>(this, query)
        {
            Due = patience is { } given ? Environment.TickCount64 + (long)given.TotalMilliseconds : long.MaxValue,
            Stop = stop,
        }.Run();

    /// <summary>Opens the database, of an older layout too; whoever calls holds the lock. Throws when a newer tool
    /// made it.</summary>
    public RunDatabase Open()
    {
        folder.Spool.Create();
        if (Layout() < RunDatabase.Schema)
            Migration.FromRows(File, folder.Spool);
        return new RunDatabase(File);
    }

    /// <summary>Moves a damaged database out of the way.</summary>
    public void SetAside()
    {
        var aside = File + ".broken-" + clock.GetUtcNow().ToString("yyyyMMddHHmmssfff");
        System.IO.File.Move(File, aside);
        System.IO.File.Delete(Path.Combine(folder.Path, "runs-log.db"));
    }

    /// <summary>The layout of the database, the present one where there is none yet; throws when a newer tool made
    /// it.</summary>
    private int Layout()
    {
        var version =
            System.IO.File.Exists(File) && new FileInfo(File).Length > 0
                ? RunDatabase.Version(File)
                : RunDatabase.Schema;
        return version <= RunDatabase.Schema
            ? version
            : throw new TrackingException(
                $"{File} was made by a newer memopt (layout {version}; this one knows up to {RunDatabase.Schema})."
            )
            {
                Failed = false,
                Next = "update the tool, or name another store",
            };
    }

    /// <summary>A store that cannot be written can still be asked: for what had been ingested before.</summary>
    private T ReadOnly<T>(Func<RunDatabase, int, T> query)
    {
        if (!System.IO.File.Exists(File))
            throw new TrackingException(
                $"The run store at {folder.Path} cannot be written, and nothing has been taken into {File} yet."
            );
        Layout();
        using var db = new RunDatabase(File, readOnly: true);
        return query(db, 0);
    }

    /// <summary>A query that waits for what it is about to be ingested. A long backlog is ingested in turns, between
    /// which others have the lock.</summary>
    private sealed class PendingQuery<T>(SharedDatabase shared, Func<RunDatabase, int, T> query)
    {
        private IReadOnlyList<Spool.PendingSegment>? news;
        private bool all;
        private string? databaseId;

        public Predicate<string>? About { get; init; }

        /// <summary>When to answer from what is there, as <see cref="Environment.TickCount64"/>.</summary>
        public long Due { get; init; } = long.MaxValue;

        public CancellationToken Stop { get; init; }

        public T Run()
        {
            while (true)
            {
                Stop.ThrowIfCancellationRequested();
                using (var held = shared.folder.Hold(Stop))
                {
                    if (held is null)
                        return shared.folder.Guard(() => shared.ReadOnly(query));
                    var (done, result) = shared.folder.Guard(TurnWithRepair);
                    if (done)
                        return result!;
                }
                // longer than those who wait for the lock wait to look again
                Thread.Sleep(Math.Max(0, shared.Turn / 16));
            }
        }

        private (bool Done, T? Result) TurnWithRepair()
        {
            try
            {
                return OneTurn();
            }
            catch (Exception e) when (IsDamage(e))
            {
                // The spools hold everything: set it aside and build it again.
                shared.SetAside();
                news = null;
                return OneTurn();
            }
        }

        /// <summary>LiteDB meets a broken file with any exception.</summary>
        private static bool IsDamage(Exception e) =>
            e
                is not (
                    TrackingException
                    or UnauthorizedAccessException
                    or OperationCanceledException
                    or OutOfMemoryException
                )
            && (e is not IOException || e is EndOfStreamException);

        private (bool Done, T? Result) OneTurn()
        {
            using var db = shared.Open();
            var ingestor = new SpoolIngestor(db, shared.folder.Spool);
            // A database that someone set aside meanwhile needs everything again, and what is sealed, too.
            if (news is null || db.DatabaseId != databaseId || !db.Complete && !all)
                (all, databaseId, news) = (!db.Complete, db.DatabaseId, ingestor.FindPending(About));
            news = ingestor.Ingest(news, Math.Min(Environment.TickCount64 + shared.Turn, Due));
            var done = !news.Any(one => About is null || About(one.Segment.Run)) || Environment.TickCount64 >= Due;
            var result = done ? query(db, news.Select(one => one.Segment.Run).Distinct().Count()) : default;
            shared.PointReads += db.Points.Reads;
            return (done, result);
        }
    }
}
