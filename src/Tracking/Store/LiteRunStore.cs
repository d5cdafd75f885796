using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Tracking;

/// <summary>Runs in a folder. Each run is written by one process to its own append-only spool, so writers never wait
/// for each other and a kill loses nothing that was acknowledged; readers bring what is new in the spools into a LiteDB
/// file under a lock and query that. The file can always be made again from the spools.
/// </summary>
public sealed class LiteRunStore : IRunStore
{
    internal static readonly JsonSerializerOptions Json = new()
    {
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter() },
    };

    private readonly StoreFolder folder;
    private readonly SharedDatabase database;
    private readonly TimeProvider clock;

    public LiteRunStore(string folder, TimeProvider? clock = null)
    {
        this.clock = clock ?? TimeProvider.System;
        this.folder = new(folder, this.clock);
        database = new(this.folder, this.clock);
        Experiments = new(
            folder,
            this.clock,
            () =>
                Directory.Exists(folder)
                    ? database.Query(db => db.Runs.Heads().Select(run => run.Experiment).ToHashSet())
                    : []
        );
    }

    /// <summary>The experiments that the runs are in.</summary>
    public Experiments Experiments { get; }

    /// <summary>How a writer's bytes get to a file: a test's disk may be full.</summary>
    internal Action<SafeFileHandle, ReadOnlyMemory<byte>, long>? Disk { get; set; }

    /// <summary>How long a query holds the lock to ingest before others may come between, in milliseconds.</summary>
    internal int Turn
    {
        get => database.Turn;
        set => database.Turn = value;
    }

    /// <summary>Curves read so far.</summary>
    internal int PointReads => database.PointReads;

    public IRunWriter Begin(RunStart start, int fromStep = 0)
    {
        if (!Spool.IsId(start.Id))
            throw new TrackingException(
                $"\"{start.Id}\" cannot be a run's id: letters, digits, - and _ only, 128 at most."
            )
            {
                Failed = false,
            };
        return folder.Guard(() =>
        {
            folder.Spool.Create();
            return new SpoolWriter(folder.Spool, start, fromStep, clock, Disk);
        });
    }

    public IRunWriter Amend(string id) =>
        folder.Guard(() =>
            Spool.IsId(id) && folder.Spool.Find(id, 0) is not null
                ? new SpoolWriter(folder.Spool, id, clock, Disk)
                : throw new TrackingException($"There is no run {id} in {folder.Path}.") { Failed = false }
        );

    public RunPage Find(RunQuery query) =>
        database.Query(new RunSearch(query, Experiments).Page, query.Patience, query.Stop);

    public Run? Get(string idOrPrefix) =>
        database.Query(
            db =>
            {
                if (db.Runs.Find(idOrPrefix) is { } exact)
                    return exact.ToRun();
                var found = idOrPrefix.Length == 0 ? [] : db.Runs.Ids(idOrPrefix);
                if (found.Count > 1)
                    throw new TrackingException(
                        $"\"{idOrPrefix}\" is the start of {found.Count} runs: {string.Join(", ", found.Take(5))}"
                            + $"{(found.Count > 5 ? ", …" : "")}."
                    )
                    {
                        Failed = false,
                        Next = "give more of the id",
                    };
                return found.Count == 1 ? db.Runs.Find(found[0])!.ToRun() : null;
            },
            id => id.StartsWith(idOrPrefix, StringComparison.Ordinal)
        );

    /// <summary>One run by its whole id; null when there is none.</summary>
    public Run? GetExact(string id) => database.Query(db => db.Runs.Find(id)?.ToRun(), one => one == id);

    public IReadOnlyList<Point> Points(string id, string metric, long after = long.MinValue) =>
        Ask(
            id,
            // the least step is a step, too
            (db, run) => db.Points.Read(run, metric, after == long.MinValue ? null : after).ToList()
        );

    public IReadOnlyList<StepRow> Steps(string id, int after = 0) =>
        Ask(
            id,
            (db, run) =>
            {
                var curves = StepRow.MetricNames.ToDictionary(
                    name => name,
                    name =>
                        db.Points.Read(run, name, after)
                            .GroupBy(point => point.Step)
                            .ToDictionary(step => step.Key, step => step.Last().Value)
                );
                return curves[StepRow.LossMetric]
                    .Keys.Select(step =>
                        StepRow.From(step, name => curves[name].TryGetValue(step, out var value) ? value : null)
                    )
                    .ToList();
            }
        );

    public IReadOnlyList<EvalRow> Evals(string id) =>
        Ask(
            id,
            (db, run) =>
                run
                    .Metrics.Keys.Where(name => name.StartsWith(Run.EvalPrefix, StringComparison.Ordinal))
                    .SelectMany(name =>
                        db.Points.Read(run, name)
                            .Select(point => (point.Step, Name: name[Run.EvalPrefix.Length..], point.Value))
                    )
                    .GroupBy(value => value.Step)
                    .OrderBy(step => step.Key)
                    .Select(step => new EvalRow(
                        (int)step.Key,
                        step.GroupBy(value => value.Name).ToDictionary(value => value.Key, value => value.Last().Value)
                    ))
                    .ToList()
        );

    public IReadOnlyList<RunEvent> Events(string id) =>
        database.Query(
            db =>
                db.Runs.Find(id) is { } run
                    ? run.Events.Select(json => JsonSerializer.Deserialize<RunEvent>(json, Json)!).ToList()
                    : [],
            one => one == id
        );

    /// <summary>Goes on with a run's text: what its training printed. Throws <see cref="IOException"/> or
    /// <see cref="UnauthorizedAccessException"/> where it cannot be written.</summary>
    public StreamWriter AppendLog(string id, int rank = 0) => folder.Logs.Append(id, rank);

    /// <summary>A run's text as far as it is written, or null when there is none.</summary>
    public Stream? ReadLog(string id) => folder.Logs.Read(id);

    /// <summary>Reads everything there is and says what is wrong: lines torn in the midst, sealed segments that cannot
    /// be read, points that do not unpack or do not add up, heads that are not what the runs began and ended with. A
    /// repair writes damaged spools anew from the database, and a damaged database anew from the spools; what is
    /// replaced stays under another name.
    /// </summary>
    public IReadOnlyList<StoreProblem> Check(bool repair)
    {
        using var held =
            folder.Hold()
            ?? throw new TrackingException(
                $"The run store at {folder.Path} cannot be written, so it cannot be checked."
            );
        return folder.Guard(() => new StoreCheck(folder, database, repair).Run(Experiments));
    }

    /// <summary>Removes a run, its points and its spool. Throws while it is being written.</summary>
    public void Remove(string id) =>
        database.Query(
            db =>
            {
                if (folder.Spool.Alive(id))
                    throw new TrackingException($"Run {id} is being written; it cannot be removed.");
                // The spool first: what a kill leaves is a run that can be removed again, not one that comes back.
                folder.Spool.Remove(id);
                if (db.Runs.Find(id, withDetails: false) is { } run)
                    db.Remove(run);
                folder.Logs.Remove(id);
                return true;
            },
            one => one == id
        );

    /// <summary>Writes runs, and with <paramref name="artifacts"/> what they link to, into one zip file: a backup, or
    /// a parcel for another store. Runs being written go in as far as they are; importing a later archive brings the
    /// rest. Their experiments go along; a backup of all runs has those without runs too. Returns how many runs went
    /// in.
    /// </summary>
    public int Export(string file, IReadOnlyCollection<string>? ids = null, IArtifactStore? artifacts = null)
    {
        var heads = database.Query(db =>
            db.Runs.Heads()
                .Where(run => ids is null || ids.Contains(run.Id))
                .Select(run => (run.Id, run.Experiment))
                .ToList()
        );
        var runs = heads.Select(run => run.Id).ToList();
        var export = new StoreExport(folder)
        {
            Runs = runs,
            Experiments = ids is null
                ? Experiments.All()
                :
                [
                    .. heads
                        .Select(run => run.Experiment)
                        .Distinct()
                        .Select(Experiments.Of)
                        .DistinctBy(experiment => experiment.Id),
                ],
            Artifacts = artifacts,
            Hashes = artifacts is null
                ? []
                : [.. runs.SelectMany(id => Get(id)?.Artifacts ?? []).Select(link => link.Hash).Distinct()],
            Made = clock.GetUtcNow(),
        };
        return folder.Guard(() =>
        {
            export.Write(file);
            return runs.Count;
        });
    }

    /// <summary>Brings in the runs of an archive, or of another store's folder. What is here already is passed over,
    /// so importing twice changes nothing; a run that was here in part gets the rest. Experiments keep their ids where
    /// these are free.
    /// </summary>
    public Imported Import(string path, IArtifactStore? artifacts = null)
    {
        try
        {
            return folder.Guard(() =>
            {
                database.Query(_ => true); // a store of a newer version is refused before anything is added
                var import = new StoreImport(folder, Experiments);
                return Directory.Exists(path) ? import.FromFolder(path) : import.FromArchive(path, artifacts);
            });
        }
        catch (Exception e)
            when (e is JsonException or InvalidDataException or NotSupportedException or ArgumentException)
        {
            throw new TrackingException($"{path} is no archive of runs, or a damaged one: {e.Message}", e)
            {
                Failed = false,
            };
        }
    }

    public void Dispose() { }

    /// <summary>Asks something of one run; of one that is not here there is nothing.</summary>
    private List<T> Ask<T>(string id, Func<RunDatabase, RunRecord, List<T>> question) =>
        database.Query(
            db => db.Runs.Find(id, withDetails: false) is { } run ? question(db, run) : [],
            one => one == id
        );
}
