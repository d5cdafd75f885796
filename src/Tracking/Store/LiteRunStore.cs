using System.Text.Json;
using System.Text.Json.Serialization;
using LiteDB;
using Microsoft.Win32.SafeHandles;
using JsonSerializer = System.Text.Json.JsonSerializer;

namespace Memopt.Tracking;

/// <summary>Runs in a folder. Each run is written by one process to its own append-only spool, so writers never wait
/// for each other and a kill loses nothing that was acknowledged; readers bring what is new in the spools into a LiteDB
/// file under a lock and query that. The file can always be made again from the spools.
/// </summary>
public sealed partial class LiteRunStore : IRunStore
{
    internal static readonly JsonSerializerOptions Json = new()
    {
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter() },
    };

    private const int Patience = 60_000;

    private readonly string folder,
        database,
        gate;
    private readonly Spool spool;
    private readonly TimeProvider clock;

    public LiteRunStore(string folder, TimeProvider? clock = null)
    {
        this.folder = folder;
        this.clock = clock ?? TimeProvider.System;
        (database, gate, spool) = (Path.Combine(folder, "runs.db"), Path.Combine(folder, "runs.lock"), new(folder));
        Experiments = new(
            folder,
            this.clock,
            () => Directory.Exists(folder) ? Query(db => db.Heads().Select(run => run.Experiment).ToHashSet()) : []
        );
    }

    /// <summary>The experiments that the runs are in.</summary>
    public Experiments Experiments { get; }

    /// <summary>How a writer's bytes get to a file: a test's disk may be full.</summary>
    internal Action<SafeFileHandle, ReadOnlyMemory<byte>, long>? Disk { get; set; }

    /// <summary>How long a query holds the lock to take in before others may come between, in milliseconds.</summary>
    internal int Turn { get; set; } = 1_000;

    /// <summary>Curves read so far.</summary>
    internal int PointReads { get; private set; }

    public IRunWriter Begin(RunStart start, int fromStep = 0)
    {
        if (!Spool.IsId(start.Id))
            throw new TrackingException(
                $"\"{start.Id}\" cannot be a run's id: letters, digits, - and _ only, 128 at most."
            )
            {
                Failed = false,
            };
        return Guard(() =>
        {
            spool.Create();
            return new SpoolWriter(spool, start, fromStep, clock, Disk);
        });
    }

    public IRunWriter Amend(string id) =>
        Guard(() =>
            Spool.IsId(id) && spool.Find(id, 0) is not null
                ? new SpoolWriter(spool, id, clock, Disk)
                : throw new TrackingException($"There is no run {id} in {folder}.") { Failed = false }
        );

    public RunPage Find(RunQuery query)
    {
        var filter = FilterParser.Parse(query.Filter, query.Stop).Then(query.Order);
        var columns = query.Columns.Select(FilterParser.Column).ToList();
        var after = query.Page is null ? null : Filter.Place.Parse(query.Page);
        var gone = query.Deleted is null ? [] : Experiments.Gone();
        var ids = new Dictionary<string, string>();
        return Query(
            (db, waiting) =>
            {
                var matching = db.Heads(query.Stop)
                    .Where(run =>
                        (query.Experiment is null || run.Experiment == query.Experiment)
                        && (query.Experiments is null || query.Experiments.Contains(run.Experiment))
                        && (
                            query.Deleted is not { } deleted
                            || (gone.Contains(run.Experiment) || run.Tags.ContainsKey(Run.DeletedTag)) == deleted
                        )
                        && (query.Status is null || run.Status == query.Status)
                        && query.Tags.All(tag => run.Tags.TryGetValue(tag.Key, out var value) && value == tag.Value)
                    )
                    .Select(run => new FilterTarget(
                        run,
                        (metric, step) => At(db, run, metric, step),
                        name => ids.TryGetValue(name, out var id) ? id : ids[name] = Experiments.Of(name).Id
                    ))
                    .Where(filter.Matches);
                // Without an order of its own a query reads no further than its page; with one it keeps no more than
                // that.
                if (after is not null)
                    matching = matching.Where(subject => filter.Compare(filter.Of(subject), after) > 0);
                var most = (int)Math.Min(query.Limit + 1L, int.MaxValue); // one more tells whether there is a next page
                var found = filter.Order.Count == 0 ? matching.Take(most).ToList() : First(matching, filter, most);
                var page = found.Take(query.Limit).ToList();
                var values = page.Select(subject =>
                        (IReadOnlyList<object?>)
                            [
                                .. columns.Select(column =>
                                    column.Read(subject) switch
                                    {
                                        string[] several => string.Join(", ", several),
                                        double time when column.Kind == OperandKind.Time =>
                                            DateTimeOffset.FromUnixTimeMilliseconds((long)time),
                                        var value => value,
                                    }
                                ),
                            ]
                    )
                    .ToList();
                foreach (var subject in page)
                    db.LoadDetails(subject.Run);
                return new RunPage(
                    [.. page.Select(subject => subject.Run.ToRun())],
                    values,
                    found.Count > page.Count && page.Count > 0 ? filter.Of(page[^1]).ToString() : null,
                    waiting
                )
                {
                    Unknown =
                        waiting > 0 ? []
                        : found.Count == 0 || filter.Of(found[0]).Keys.Contains(null)
                            ? Spelling.Unknown(filter.Names, db.Heads(query.Stop))
                        : [],
                };
            },
            patience: query.Patience,
            stop: query.Stop
        );
    }

    public Run? Get(string idOrPrefix) =>
        Query(
            db =>
            {
                if (db.FindById(idOrPrefix) is { } exact)
                    return exact.ToRun();
                var found = idOrPrefix.Length == 0 ? [] : db.Ids(idOrPrefix);
                if (found.Count > 1)
                    throw new TrackingException(
                        $"\"{idOrPrefix}\" is the start of {found.Count} runs: {string.Join(", ", found.Take(5))}"
                            + $"{(found.Count > 5 ? ", …" : "")}."
                    )
                    {
                        Failed = false,
                        Next = "give more of the id",
                    };
                return found.Count == 1 ? db.FindById(found[0])!.ToRun() : null;
            },
            id => id.StartsWith(idOrPrefix, StringComparison.Ordinal)
        );

    /// <summary>One run by its whole id; null when there is none.</summary>
    public Run? GetExact(string id) => Query(db => db.FindById(id)?.ToRun(), one => one == id);

    public IReadOnlyList<Point> Points(string id, string metric, long after = long.MinValue) =>
        Query(
            db =>
                db.FindById(id, details: false) is { } run
                    ? db.Points(run, metric, after == long.MinValue ? null : after).ToList()
                    : [], // the least step is a step, too
            one => one == id
        );

    public IReadOnlyList<StepRow> Steps(string id, int after = 0) =>
        Query(
            db =>
            {
                if (db.FindById(id, details: false) is not { } run)
                    return [];
                var names = RunDatabase.Row(new(0, 0, 0, 0, 0, 0, 0, 0)).Select(metric => metric.Name).ToList();
                var curves = names
                    .Select(name =>
                        db.Points(run, name, after)
                            .GroupBy(point => point.Step)
                            .ToDictionary(step => step.Key, step => step.Last().Value)
                    )
                    .ToList();
                double Of(int curve, long step, double otherwise) => curves[curve].GetValueOrDefault(step, otherwise);
                return curves[0]
                    .Keys.Select(step => new StepRow(
                        (int)step,
                        Of(0, step, 0),
                        Of(1, step, double.NaN),
                        Of(2, step, double.NaN),
                        (long)Of(3, step, 0),
                        Of(4, step, double.NaN),
                        (long)Of(5, step, 0),
                        Of(6, step, double.NaN)
                    ))
                    .ToList();
            },
            one => one == id
        );

    public IReadOnlyList<EvalRow> Evals(string id) =>
        Query(
            db =>
            {
                if (db.FindById(id, details: false) is not { } run)
                    return [];
                return run
                    .Metrics.Keys.Where(name => name.StartsWith(Run.EvalPrefix, StringComparison.Ordinal))
                    .SelectMany(name =>
                        db.Points(run, name)
                            .Select(point => (point.Step, Name: name[Run.EvalPrefix.Length..], point.Value))
                    )
                    .GroupBy(value => value.Step)
                    .OrderBy(step => step.Key)
                    .Select(step => new EvalRow(
                        (int)step.Key,
                        step.GroupBy(value => value.Name).ToDictionary(value => value.Key, value => value.Last().Value)
                    ))
                    .ToList();
            },
            one => one == id
        );

    public IReadOnlyList<RunEvent> Events(string id) =>
        Query(
            db =>
                db.FindById(id) is { } run
                    ? run.Events.Select(json => JsonSerializer.Deserialize<RunEvent>(json, Json)!).ToList()
                    : [],
            one => one == id
        );

    public void Dispose() { }

    /// <summary>The first so many in a filter's order.</summary>
    private static List<FilterTarget> First(IEnumerable<FilterTarget> subjects, Filter filter, int count)
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

    private static double? At(RunDatabase db, RunRecord run, string metric, long step)
    {
        var there = db.Points(run, metric, step == long.MinValue ? null : step - 1)
            .TakeWhile(point => point.Step == step)
            .ToList();
        return there.Count == 0 ? null : there[^1].Value;
    }

    /// <summary>Runs a query over a database that has every complete spool line of the runs it is about; lines of
    /// others are taken in as far as one turn goes.
    /// </summary>
    /// <param name="query">What is asked.</param>
    /// <param name="about">Which ids it is about; null for all runs.</param>
    private T Query<T>(Func<RunDatabase, T> query, Predicate<string>? about = null) =>
        Query((db, _) => query(db), about);

    /// <summary>The same with a number of runs that are not taken in yet when <paramref name="patience"/> ends. A long
    /// backlog is taken in turns, between which others have the lock.
    /// </summary>
    private T Query<T>(
        Func<RunDatabase, int, T> query,
        Predicate<string>? about = null,
        TimeSpan? patience = null,
        CancellationToken stop = default
    )
    {
        var (news, all, made) = ((IReadOnlyList<Spool.PendingSegment>?)null, false, (string?)null);
        var due = patience is { } given ? Environment.TickCount64 + (long)given.TotalMilliseconds : long.MaxValue;
        while (true)
        {
            stop.ThrowIfCancellationRequested();
            using (var held = Hold(Environment.TickCount64 + Patience, stop))
            {
                if (held is null)
                    return Guard(() => ReadOnly(query));
                var (done, result) = Guard(Repaired);
                if (done)
                    return result!;
            }
            Thread.Sleep(Math.Max(0, Turn / 16)); // longer than those who wait for the lock wait to look again
        }

        (bool, T?) Repaired()
        {
            try
            {
                return Once();
            }
            catch (Exception e)
                when (e
                        is not (
                            TrackingException
                            or UnauthorizedAccessException
                            or OperationCanceledException
                            or OutOfMemoryException
                        )
                    && (e is not IOException || e is EndOfStreamException)
                )
            {
                // LiteDB meets a broken file with any exception. The spools hold everything: set it aside and build it
                // again.
                SetAside();
                news = null;
                return Once();
            }
        }

        (bool, T?) Once()
        {
            using var db = Open();
            // A database that someone set aside meanwhile needs everything again, and what is sealed, too.
            if (news is null || db.DatabaseId != made || !db.Complete && !all)
                (all, made, news) = (!db.Complete, db.DatabaseId, db.Left(spool.FindPending(all: !db.Complete, about)));
            news = db.Ingest(news, Math.Min(Environment.TickCount64 + Turn, due));
            var done = !news.Any(one => about is null || about(one.Segment.Run)) || Environment.TickCount64 >= due;
            var result = done ? query(db, news.Select(one => one.Segment.Run).Distinct().Count()) : default;
            PointReads += db.PointReads;
            return (done, result);
        }
    }

    /// <summary>A store that cannot be written can still be asked: for what had been taken in before.</summary>
    private T ReadOnly<T>(Func<RunDatabase, int, T> query)
    {
        if (!File.Exists(database))
            throw new TrackingException(
                $"The run store at {folder} cannot be written, and nothing has been taken into {database} yet."
            );
        Known();
        using var db = new RunDatabase(database, spool, readOnly: true);
        return query(db, 0);
    }

    /// <summary>The layout of the database, the present one where there is none yet; throws when a newer tool made
    /// it.</summary>
    private int Known()
    {
        var version =
            File.Exists(database) && new FileInfo(database).Length > 0
                ? RunDatabase.Version(database)
                : RunDatabase.Schema;
        return version <= RunDatabase.Schema
            ? version
            : throw new TrackingException(
                $"{database} was made by a newer memopt (layout {version}; this one knows up to {RunDatabase.Schema})."
            )
            {
                Failed = false,
                Next = "update the tool, or name another store",
            };
    }

    private RunDatabase Open()
    {
        spool.Create();
        if (Known() < RunDatabase.Schema)
            Migration.FromRows(database, spool);
        return new RunDatabase(database, spool);
    }

    private void SetAside()
    {
        var aside = database + ".broken-" + clock.GetUtcNow().ToString("yyyyMMddHHmmssfff");
        File.Move(database, aside);
        File.Delete(Path.Combine(folder, "runs-log.db"));
    }

    /// <summary>LiteDB does not lock out a second process on Linux, so this file does. Null when the folder cannot be
    /// written.</summary>
    private FileStream? Hold(long patience, CancellationToken stop = default)
    {
        if (!Directory.Exists(folder))
            Guard(() => Directory.CreateDirectory(folder));
        for (var wait = 2; ; wait = Math.Min(wait * 2, 50))
        {
            stop.ThrowIfCancellationRequested();
            try
            {
                return new FileStream(gate, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
            catch (IOException e) when (e.HResult is 30 or unchecked((int)0x80070013)) // EROFS; write-protected
            {
                return null;
            }
            catch (IOException) when (Environment.TickCount64 < patience)
            {
                Thread.Sleep(wait);
            }
            catch (IOException e)
            {
                throw new TrackingException($"The run store cannot be locked: {gate}: {e.Message}", e);
            }
        }
    }

    private T Guard<T>(Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or LiteException)
        {
            throw new TrackingException($"The run store at {folder} cannot be used: {e.Message}", e);
        }
    }
}
