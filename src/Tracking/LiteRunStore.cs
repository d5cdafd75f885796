using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using LiteDB;
using JsonSerializer = System.Text.Json.JsonSerializer;

namespace Memopt.Tracking;

/// <summary>
/// Runs in a folder. Each run is written by one process to its own append-only spool, so writers never wait for each other and a kill
/// loses nothing that was acknowledged; readers bring new spool lines into a LiteDB file under a lock and query that.
/// </summary>
public sealed class LiteRunStore : IRunStore
{
    internal static readonly JsonSerializerOptions Json = new()
    {
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter() },
    };

    private readonly string spool, database, gate;

    public LiteRunStore(string folder)
    {
        (spool, database, gate) = (Path.Combine(folder, "spool"), Path.Combine(folder, "runs.db"), Path.Combine(folder, "runs.lock"));
        Guard(spool, () => Directory.CreateDirectory(spool));
    }

    public IRunWriter Begin(RunStart start, int fromStep = 0) => Guard(spool, () => new SpoolWriter(spool, start, fromStep));

    public IReadOnlyList<Run> Find(RunQuery query) => Query(db =>
    {
        var runs = db.GetCollection("runs").FindAll().Select(Run)
            .Where(run => (query.Experiment is null || run.Start.Experiment == query.Experiment)
                && (query.Status is null || run.Status == query.Status)
                && query.Tags.All(tag => run.Start.Tags.TryGetValue(tag.Key, out var value) && value == tag.Value));
        return runs.OrderByDescending(run => run.Start.Started).ThenByDescending(run => run.Start.Id, StringComparer.Ordinal).Take(query.Limit).ToList();
    });

    public Run? Get(string idOrPrefix) => Query(db =>
    {
        var runs = db.GetCollection("runs");
        if (runs.FindById(idOrPrefix) is { } exact)
            return Run(exact);
        var found = runs.Query().Where("$._id LIKE @0", idOrPrefix + "%").ToList();
        if (found.Count > 1)
            throw new TrackingException($"\"{idOrPrefix}\" is the start of {found.Count} runs: {string.Join(", ", found.Take(5).Select(d => d["_id"].AsString))}.");
        return found.Count == 1 ? Run(found[0]) : null;
    });

    public IReadOnlyList<StepRow> Steps(string id) => Query(db => Rows<StepRow>(db, "steps", id)
        .GroupBy(row => row.Step).Select(group => group.Last()).OrderBy(row => row.Step).ToList());

    public IReadOnlyList<EvalRow> Evals(string id) => Query(db => Rows<EvalRow>(db, "evals", id).ToList());

    public IReadOnlyList<RunEvent> Events(string id) => Query(db => db.GetCollection("runs").FindById(id) is { } run && run["events"].IsArray
        ? run["events"].AsArray.Select(item => JsonSerializer.Deserialize<RunEvent>(item.AsString, Json)!).ToList() : []);

    public void Dispose()
    {
    }

    /// <summary>Runs a query over a database that has every complete spool line in it.</summary>
    private T Query<T>(Func<LiteDatabase, T> query)
    {
        using var held = Hold();
        return Guard(database, () =>
        {
            try
            {
                return Once();
            }
            catch (Exception e) when (e is not (TrackingException or UnauthorizedAccessException) && (e is not IOException || e is EndOfStreamException))
            {
                // LiteDB meets a broken file with any exception. The spools hold everything: set it aside and build it again.
                var aside = database + ".broken-" + DateTime.UtcNow.ToString("yyyyMMddHHmmss");
                File.Move(database, aside);
                File.Delete(database.Replace(".db", "-log.db"));
                return Once();
            }

            T Once()
            {
                using var db = new LiteDatabase(new ConnectionString { Filename = database, Connection = ConnectionType.Direct });
                foreach (var file in Directory.EnumerateFiles(spool, "*.jsonl"))
                    Ingest(db, file);
                return query(db);
            }
        });
    }

    /// <summary>LiteDB does not lock out a second process on Linux, so this file does.</summary>
    private FileStream Hold()
    {
        var patience = Environment.TickCount64 + 30_000;
        for (var wait = 5; ; wait = Math.Min(wait * 2, 200))
        {
            try
            {
                return new FileStream(gate, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (Environment.TickCount64 < patience)
            {
                Thread.Sleep(wait);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new TrackingException($"The run store cannot be locked: {gate}: {e.Message}", e);
            }
        }
    }

    private static void Ingest(LiteDatabase db, string file)
    {
        var id = Path.GetFileNameWithoutExtension(file);
        var runs = db.GetCollection("runs");
        var known = runs.FindById(id);
        var done = known?["offset"].AsInt64 ?? 0;
        var length = new FileInfo(file).Length;
        if (length <= done)
            return;
        var bytes = new byte[length - done];
        using (var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite))
        {
            stream.Position = done;
            stream.ReadExactly(bytes);
        }
        var whole = Array.LastIndexOf(bytes, (byte)'\n') + 1;
        if (whole == 0)
            return;
        var run = known ?? new BsonDocument { ["_id"] = id };
        var (steps, evals) = (new List<string>(), new List<string>());
        db.BeginTrans();
        foreach (var line in Encoding.UTF8.GetString(bytes, 0, whole).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (SpoolLine.Read(line) is not { } entry)
                continue;                                                     // torn by a kill, then written over by the next start
            switch (entry.Kind)
            {
                case "begin":
                    run["start"] = entry.Body;
                    if (!run["started"].IsString)                             // a run that goes on keeps its first beginning
                        run["started"] = JsonSerializer.Deserialize<RunStart>(entry.Body, Json)!.Started.ToString("O");
                    run["end"] = BsonValue.Null;
                    var from = entry.FromStep;
                    Flush();
                    Rewrite(db, "steps", id, body => JsonSerializer.Deserialize<StepRow>(body, Json)!.Step <= from);
                    Rewrite(db, "evals", id, body => JsonSerializer.Deserialize<EvalRow>(body, Json)!.Step <= from);
                    break;
                case "step":
                    steps.Add(entry.Body);
                    run["last"] = entry.Body;
                    break;
                case "eval":
                    evals.Add(entry.Body);
                    run["eval"] = entry.Body;
                    break;
                case "artifact":
                    (run["artifacts"].IsArray ? run["artifacts"].AsArray : (run["artifacts"] = new BsonArray()).AsArray).Add(entry.Body);
                    break;
                case "event":
                    (run["events"].IsArray ? run["events"].AsArray : (run["events"] = new BsonArray()).AsArray).Add(entry.Body);
                    break;
                case "end":
                    run["end"] = entry.Body;
                    break;
            }
        }
        Flush();
        run["offset"] = done + whole;
        runs.Upsert(run);
        db.Commit();
        db.Checkpoint();

        void Flush()
        {
            Chunk(db, "steps", id, steps);
            Chunk(db, "evals", id, evals);
        }
    }

    /// <summary>Rows as documents of up to 512, so that a long run is a few documents.</summary>
    private static void Chunk(LiteDatabase db, string collection, string id, List<string> rows)
    {
        var chunks = db.GetCollection(collection);
        chunks.EnsureIndex("run");
        foreach (var part in rows.Chunk(512))
            chunks.Insert(new BsonDocument { ["run"] = id, ["rows"] = new BsonArray(part.Select(row => new BsonValue(row))) });
        rows.Clear();
    }

    private static void Rewrite(LiteDatabase db, string collection, string id, Func<string, bool> keep)
    {
        var kept = Bodies(db, collection, id).Where(keep).ToList();
        db.GetCollection(collection).DeleteMany("$.run = @0", id);
        Chunk(db, collection, id, kept);
    }

    private static IEnumerable<string> Bodies(LiteDatabase db, string collection, string id) =>
        db.GetCollection(collection).Find(LiteDB.Query.EQ("run", id)).OrderBy(chunk => chunk["_id"].AsObjectId)
            .SelectMany(chunk => chunk["rows"].AsArray.Select(row => row.AsString)).ToList();

    private static IEnumerable<T> Rows<T>(LiteDatabase db, string collection, string id) =>
        Bodies(db, collection, id).Select(body => JsonSerializer.Deserialize<T>(body, Json)!);

    private Run Run(BsonDocument document)
    {
        var start = JsonSerializer.Deserialize<RunStart>(document["start"].AsString, Json)! with { Started = DateTimeOffset.Parse(document["started"].AsString) };
        var end = document["end"].IsString ? JsonSerializer.Deserialize<Outcome>(document["end"].AsString, Json) : null;
        var last = document["last"].IsString ? JsonSerializer.Deserialize<StepRow>(document["last"].AsString, Json) : null;
        var eval = document["eval"].IsString ? JsonSerializer.Deserialize<EvalRow>(document["eval"].AsString, Json) : null;
        var status = end?.Status ?? (SpoolWriter.Alive(spool, start.Id) ? RunStatus.Running : RunStatus.Interrupted);
        return new Run(start, status, end?.Ended, end?.Reason)
        {
            Step = last?.Step ?? 0,
            Loss = last?.Loss,
            Eval = eval?.Values ?? new Dictionary<string, double>(),
            Ledger = end is { Ledger.Count: > 0 } ? end.Ledger : start.Ledger,
            Artifacts = document["artifacts"].IsArray
                ? [.. document["artifacts"].AsArray.Select(item => JsonSerializer.Deserialize<ArtifactLink>(item.AsString, Json)!).GroupBy(link => link.Name).Select(group => group.Last())] : [],
        };
    }

    private static T Guard<T>(string path, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or LiteException)
        {
            throw new TrackingException($"The run store at {path} cannot be used: {e.Message}", e);
        }
    }
}
