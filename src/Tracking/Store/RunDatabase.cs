using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using LiteDB;
using JsonSerializer = System.Text.Json.JsonSerializer;

namespace Memopt.Tracking;

/// <summary>The LiteDB file: made from the spools and never the only place of anything. Four collections: runs (heads,
/// all that a query reads), details, points (chunks whose keys are run, metric and place in one number, so that a curve
/// lies together), and state. LiteDB reads numbers only that it must order by; values of metrics, which may be NaN, are
/// bytes to it.
/// </summary>
internal sealed class RunDatabase : IDisposable
{
    /// <summary>Counts the layouts of the file. 0 had a document of rows for each 512 steps.</summary>
    public const int Schema = 1;

    /// <summary>Names of metrics that a run can have: keys have no room for more.</summary>
    private const int MostMetrics = 1 << 15;

    private const int Window = 4 << 20;

    private const string Range = "_id BETWEEN @0 AND @1";

    /// <summary>Runs that are taken in together at most: to seal so many takes about as long as a turn.</summary>
    private const int MostInLot = 1024;

    private readonly LiteDatabase db;
    private readonly string log;
    private readonly Spool spool;
    private readonly ILiteCollection<BsonDocument> runs,
        details,
        points,
        state;
    private bool within,
        undone;
    private int uncommitted;
    private long? highest;

    public RunDatabase(string file, Spool spool, bool readOnly = false)
    {
        this.spool = spool;
        log = Path.ChangeExtension(file, null) + "-log" + Path.GetExtension(file);
        db = new LiteDatabase(
            new ConnectionString
            {
                Filename = file,
                Connection = ConnectionType.Direct,
                ReadOnly = readOnly,
            }
        );
        (runs, details, points, state) = (
            db.GetCollection("runs"),
            db.GetCollection("details"),
            db.GetCollection("points"),
            db.GetCollection("state")
        );
        if (readOnly)
            return;
        if (db.CheckpointSize != 0)
            db.CheckpointSize = 0; // by itself LiteDB would not look whether it can: see Checkpoint
        if (db.UserVersion == Schema)
            return;
        runs.EnsureIndex("id");
        runs.EnsureIndex("at");
        state.Upsert(new BsonDocument { ["_id"] = "made", ["as"] = Guid.NewGuid().ToString("N") });
        db.UserVersion = Schema;
    }

    /// <summary>Tells this database from one that is made anew; null of earlier ones.</summary>
    public string? DatabaseId => state.FindById("made")?["as"].AsString;

    /// <summary>Accesses to the points, for the test that lists do not read them.</summary>
    public int PointReads { get; private set; }

    public void Dispose() => db.Dispose();

    /// <summary>The layout of a file that is there.</summary>
    public static int Version(string file)
    {
        using var db = new LiteDatabase(
            new ConnectionString
            {
                Filename = file,
                Connection = ConnectionType.Direct,
                ReadOnly = true,
            }
        );
        return db.UserVersion;
    }

    /// <summary>Takes in what the spools had when they were looked at, and returns what was left of it when time ran
    /// out: to begin with that again would cost all the time there is once many runs wait. What writers add meanwhile
    /// is the next query's: it could come faster than it is taken in. Goes beyond its time by one lot at most.
    /// </summary>
    /// <param name="news">What there may be to take in.</param>
    /// <param name="until">When to end, as <see cref="Environment.TickCount64"/>.</param>
    public IReadOnlyList<Spool.PendingSegment> Ingest(IReadOnlyList<Spool.PendingSegment> news, long until)
    {
        var left = new Queue<IGrouping<string, Spool.PendingSegment>>(news.GroupBy(one => one.Segment.Run));
        do Lot(left, until);
        while (left.Count > 0 && Environment.TickCount64 <= until);
        if (left.Count == 0 && !Complete)
        {
            state.Upsert(new BsonDocument { ["_id"] = "complete" });
            Checkpoint();
        }
        return [.. left.SelectMany(run => run)];
    }

    /// <summary>Takes in the next runs, together: each wait for the disk costs more than to take in a run. All of a
    /// lot are on the disk before their spools leave their place.
    /// </summary>
    private void Lot(Queue<IGrouping<string, Spool.PendingSegment>> left, long until)
    {
        var sealing = new List<Spool.Segment>();
        var changed = false;
        try
        {
            for (var runs = 0; runs < MostInLot && left.TryPeek(out var run); runs++)
            {
                // Looked at before the lines are: once it is gone nothing more comes.
                var alive = spool.Alive(run.Key);
                var record = FindById(run.Key) ?? New(run.Key);
                foreach (var (known, length) in run)
                {
                    if (known.Number < record.Segment || spool.Find(known.Run, known.Number) is not { } segment)
                        continue;
                    var (took, done) = Ingest(
                        record,
                        segment,
                        alive && !segment.Sealed ? length : long.MaxValue,
                        until
                    );
                    changed |= took;
                    if (!done)
                        return;
                }
                if (!alive && record.Status == RunStatus.Running && record.StartJson is not null)
                {
                    record.Status = RunStatus.Interrupted;
                    Begin();
                    Save(record, details: false);
                    changed = true;
                }
                sealing.AddRange(
                    run.Select(one => one.Segment)
                        .Where(segment =>
                            !segment.Sealed && File.Exists(segment.File) && (!alive || segment.Number < record.Segment)
                        )
                );
                left.Dequeue();
                if (Environment.TickCount64 > until)
                    return;
            }
        }
        finally
        {
            Commit();
            if (changed)
                Checkpoint(); // on the disk, before a spool leaves its place
            if (!undone)
                spool.Seal(sealing);
        }
    }

    /// <summary>News without the sealed segments that are taken in already: while a database is made anew they lie
    /// beside those that are not, and each query would begin with them.
    /// </summary>
    public IReadOnlyList<Spool.PendingSegment> Left(IReadOnlyList<Spool.PendingSegment> news)
    {
        if (Complete)
            return news;
        var reached = runs.FindAll()
            .ToDictionary(
                run => run["id"].AsString,
                run => (Segment: run["segment"].AsInt32, Offset: run["offset"].AsInt64)
            );
        return
        [
            .. news.Where(one =>
                !(
                    one.Segment.Sealed
                    && reached.TryGetValue(one.Segment.Run, out var at)
                    && (
                        one.Segment.Number < at.Segment
                        || one.Segment.Number == at.Segment && one.Segment.Holds(at.Offset)
                    )
                )
            ),
        ];
    }

    /// <summary>Whether everything sealed has been taken in: if so, only open spools have news.</summary>
    public bool Complete => state.FindById("complete") is not null;

    public RunRecord? FindById(string id, bool details = true) =>
        runs.Find(Where("id = @0", id)).ToList().FirstOrDefault(document => document["id"].AsString == id) is { } found
            ? Record(found, details)
            : null;

    /// <summary>Ids that begin so.</summary>
    public List<string> Ids(string prefix) =>
        [
            .. runs.Find(Where("id LIKE @0", prefix + "%"))
                .Select(document => document["id"].AsString)
                .Where(id => id.StartsWith(prefix, StringComparison.Ordinal))
                .Order(StringComparer.Ordinal),
        ];

    /// <summary>All heads, newest first; runs of one instant by id.</summary>
    public IEnumerable<RunRecord> Heads(CancellationToken stop = default)
    {
        var together = new List<RunRecord>();
        foreach (var document in runs.Find(Query.All("at", Query.Descending)))
        {
            stop.ThrowIfCancellationRequested();
            var record = Record(document, withDetails: false);
            if (together.Count > 0 && together[0].Started != record.Started)
            {
                foreach (var one in together.OrderBy(one => one.Id, StringComparer.Ordinal))
                    yield return one;
                together.Clear();
            }
            together.Add(record);
        }
        foreach (var one in together.OrderBy(one => one.Id, StringComparer.Ordinal))
            yield return one;
    }

    /// <summary>Adds the details to a head.</summary>
    public void LoadDetails(RunRecord record)
    {
        var document = details.FindById(record.Number);
        record.StartJson = document["start"].AsString;
        record.EndJson = document["end"].IsString ? document["end"].AsString : null;
        record.Artifacts.AddRange(document["artifacts"].AsArray.Select(item => item.AsString));
        record.Events.AddRange(document["events"].AsArray.Select(item => item.AsString));
        var later = document["later"];
        var pairs = later.IsArray
            ? later.AsArray.Chunk(2).Select(pair => (Key: pair[0].AsString, Value: pair[1]))
            : later.AsDocument.Select(pair => (pair.Key, pair.Value)); // a document in earlier files
        foreach (var (key, value) in pairs)
            record.Later[key] = value.IsString ? value.AsString : null;
    }

    public IEnumerable<Point> Points(RunRecord record, string metric, long? after = null)
    {
        if (!record.Metrics.TryGetValue(metric, out var known))
            return [];
        PointReads++;
        var sorted = true;
        var all = new List<Point>();
        foreach (var chunk in Chunks(record, known))
        {
            if (chunk["top"].AsInt64 <= after)
                continue;
            foreach (var point in Chunk.Unpack(chunk["bin"].AsBinary))
            {
                if (point.Step <= after)
                    continue;
                sorted &= all.Count == 0 || all[^1].Step <= point.Step;
                all.Add(point);
            }
        }
        return sorted ? all : all.OrderBy(point => point.Step);
    }

    private IEnumerable<BsonDocument> Chunks(RunRecord record, RunRecord.Metric metric) =>
        points.Find(Where(Range, Key(record, metric, 0), Key(record, metric, metric.Chunks - 1)));

    /// <summary>Removes a run.</summary>
    public void Remove(RunRecord record)
    {
        points.DeleteMany(Where(Range, record.Number << 40, ((record.Number + 1) << 40) - 1));
        details.Delete(record.Number);
        runs.Delete(record.Number);
        Checkpoint();
    }

    /// <summary>What does not add up, or null.</summary>
    public string? FindInconsistency()
    {
        // An id that was damaged, or its place in the index, hides a run from all who ask for it.
        foreach (var id in spool.Segments(all: true).Select(segment => segment.Run).Distinct())
        {
            if (FindById(id, details: false) is null && !spool.Alive(id) && spool.Begun(id))
                return $"run {id} is not in it";
        }
        foreach (var run in Heads())
        {
            if (spool.Find(run.Id, 0) is null)
                return $"it has a run {run.Id}, of which there is no spool";
            LoadDetails(run);
            if (!run.Agrees())
                return $"what it says of run {run.Id} is not what the run began and ended with";
            foreach (var (name, metric) in run.Metrics)
            {
                var sum = new RunRecord.Metric(metric.Number);
                foreach (var point in Chunks(run, metric).SelectMany(chunk => Chunk.Unpack(chunk["bin"].AsBinary)))
                    sum.Add(point); // in the order in which they came: the sums are the same to the bit
                if (sum.Count != metric.Count)
                    return $"run {run.Id} has {sum.Count} points of {name}, and should have {metric.Count}";
                if (sum.Summary != metric.Summary)
                    return $"run {run.Id} has other points of {name} than were recorded";
            }
        }
        return null;
    }

    /// <summary>All that is known of a run as lines of a spool.</summary>
    public void Write(RunRecord run, ArrayBufferWriter<byte> lines)
    {
        using var json = new Utf8JsonWriter(Stream.Null);
        void Line(string kind, string? body)
        {
            if (body is not null)
                SpoolLine.Write(lines, kind, 0, Encoding.UTF8.GetBytes(body));
        }
        Line("begin", run.StartJson);
        foreach (var (key, value) in run.Later)
            Line(
                key[0] == 't' ? "tag" : "param",
                JsonSerializer.Serialize(new SpoolWriter.Named(key[1..], value), LiteRunStore.Json)
            );
        foreach (var name in run.Metrics.Keys)
        {
            foreach (var point in Points(run, name))
                SpoolLine.Write(lines, "log", 0, [(name, point.Value)], point.Time, point.Step, json);
        }
        run.Events.ForEach(item => Line("event", item));
        run.Artifacts.ForEach(item => Line("artifact", item));
        Line("end", run.EndJson);
    }

    /// <summary>A condition whose values are parameters. LiteDB compiles each text of a condition to machine code
    /// once, in two milliseconds, and keeps it as long as the process lives: values within the text would be a new one
    /// each time.
    /// </summary>
    private static BsonExpression Where(string condition, params ReadOnlySpan<BsonValue> values) =>
        BsonExpression.Create(condition, values.ToArray());

    private RunRecord New(string id)
    {
        highest ??= runs.Find(Query.All("_id", Query.Descending), limit: 1).FirstOrDefault()?["_id"].AsInt64 ?? 0;
        return new() { Id = id, Number = (++highest).Value };
    }

    private RunRecord Record(BsonDocument document, bool withDetails)
    {
        var record = new RunRecord
        {
            Id = document["id"].AsString,
            Number = document["_id"].AsInt64,
            Segment = document["segment"].AsInt32,
            Offset = document["offset"].AsInt64,
        };
        record.UnpackHead(document["head"].AsBinary);
        if (withDetails)
            LoadDetails(record);
        return record;
    }

    private void Save(RunRecord record, bool details)
    {
        runs.Upsert(
            new BsonDocument
            {
                ["_id"] = record.Number,
                ["id"] = record.Id,
                ["at"] = record.Started,
                ["segment"] = record.Segment,
                ["offset"] = record.Offset,
                ["head"] = record.PackHead(),
            }
        );
        if (!details)
            return;
        this.details.Upsert(
            new BsonDocument
            {
                ["_id"] = record.Number,
                ["start"] = record.StartJson,
                ["end"] = record.EndJson,
                ["artifacts"] = new BsonArray(record.Artifacts.Select(item => new BsonValue(item))),
                ["events"] = new BsonArray(record.Events.Select(item => new BsonValue(item))),
                ["later"] = new BsonArray(
                    record.Later.SelectMany(item => new[] { new BsonValue(item.Key), new BsonValue(item.Value) })
                ), // a LiteDB document does not tell "lr" from "LR"
            }
        );
    }

    /// <summary>Takes in a segment up to a length, a window at a time, each in one transaction with the offset it
    /// reaches: a kill between them repeats nothing. A transaction waits for the disk, so short segments share one.
    /// Says whether there was anything, and whether it came to the end in time.
    /// </summary>
    private (bool Took, bool Done) Ingest(RunRecord record, Spool.Segment segment, long length, long until)
    {
        if (segment.Number > record.Segment)
            (record.Segment, record.Offset) = (segment.Number, 0);
        if (!segment.Sealed)
            length = Math.Min(length, new FileInfo(segment.File).Length);
        if (length <= record.Offset)
            return (false, true);
        using var source = segment.Read(record.Offset);
        var buffer = new byte[(int)Math.Min(Window, length - record.Offset)];
        var (held, took) = (0, false);
        while (true)
        {
            var read = LoadDetails(
                source,
                buffer.AsSpan(held, (int)Math.Min(buffer.Length - held, length - record.Offset - held)),
                segment.Sealed
            );
            held += read;
            var whole = buffer.AsSpan(0, held).LastIndexOf((byte)'\n') + 1;
            if (whole > 0)
            {
                Begin();
                try
                {
                    var batch = new Batch(this, record);
                    batch.Take(buffer.AsSpan(0, whole));
                    record.Offset += whole;
                    if (record.StartJson is not null)
                        Save(record, batch.Details);
                }
                catch
                {
                    (within, undone) = (false, true);
                    db.Rollback();
                    throw;
                }
                uncommitted += whole;
                if (uncommitted >= Window)
                    Commit();
                took = true;
                buffer.AsSpan(whole, held - whole).CopyTo(buffer);
                held -= whole;
            }
            if (read == 0 || record.Offset + held >= length)
                return (took, true);
            if (Environment.TickCount64 > until)
                return (took, false);
            if (held == buffer.Length)
                Array.Resize(ref buffer, buffer.Length * 2); // a line longer than the window
        }
    }

    private void Begin()
    {
        if (!within)
            db.BeginTrans();
        within = true;
    }

    private void Commit()
    {
        if (!within)
            return;
        (within, uncommitted) = (false, 0);
        db.Commit();
        Checkpoint();
    }

    /// <summary>Brings what is committed into the file and onto the disk. LiteDB writes its log on a thread of its own
    /// and waits for it without end, also when it died of a full disk. So before it waits the log must be as long as it
    /// will be; asked for that length, LiteDB throws what the thread met.
    /// </summary>
    private void Checkpoint()
    {
        while (
            db.Execute("SELECT $ FROM $database").ToList()[0]["logFileSize"].AsInt64 is var length
            && File.Exists(log)
            && new FileInfo(log).Length < length
        )
            Thread.Sleep(1);
        db.Checkpoint();
    }

    /// <summary>Reads what there is; a compressed file that ends early or is damaged gives what comes before.</summary>
    private static int LoadDetails(Stream source, Span<byte> target, bool compressed)
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

    /// <summary>23 bits of run, 16 of metric, 24 of chunk.</summary>
    private static long Key(RunRecord run, RunRecord.Metric metric, int chunk) =>
        (run.Number << 40) | ((long)metric.Number << 24) | (uint)chunk;

    /// <summary>Lines of a run on their way into its record and chunks.</summary>
    private sealed class Batch(RunDatabase database, RunRecord record)
    {
        private readonly List<Column> columns = [];
        private readonly Dictionary<string, Column> byName = [];

        /// <summary>Whether more than the head has changed.</summary>
        public bool Details { get; private set; }

        private sealed record Column(string Name, List<Point> Points);

        public void Take(ReadOnlySpan<byte> lines)
        {
            foreach (var range in lines.Split((byte)'\n'))
            {
                try
                {
                    One(lines[range]);
                }
                catch (JsonException)
                {
                    // Whole, but of a shape that this version does not know: it stays in the spool for one that does.
                }
            }
            Flush();
        }

        private void One(ReadOnlySpan<byte> line)
        {
            if (!SpoolLine.TryRead(line, out var kind, out var fromStep, out var body))
                return; // torn by a kill
            if (kind.SequenceEqual("log"u8))
            {
                Log(body);
                return;
            }
            if (kind.SequenceEqual("step"u8)) // as version 0 of the layout wrote them
            {
                Old(JsonSerializer.Deserialize<StepRow>(body, LiteRunStore.Json)!);
                return;
            }
            if (kind.SequenceEqual("eval"u8))
            {
                Old(JsonSerializer.Deserialize<EvalRow>(body, LiteRunStore.Json)!);
                return;
            }
            Details = true;
            var json = Encoding.UTF8.GetString(body);
            switch (Encoding.UTF8.GetString(kind))
            {
                case "begin":
                    Flush();
                    record.Begin(json);
                    if (fromStep < int.MaxValue)
                        database.Cut(record, fromStep);
                    columns.Clear();
                    byName.Clear();
                    break;
                case "event":
                    record.Events.Add(json);
                    break;
                case "artifact":
                    record.Artifacts.Add(json);
                    break;
                case "param" or "tag":
                    var named = JsonSerializer.Deserialize<SpoolWriter.Named>(json, LiteRunStore.Json)!;
                    record.Set(kind.SequenceEqual("tag"u8), named.Name, named.Value);
                    break;
                case "end":
                    record.End(json);
                    break;
            }
        }

        private void Log(ReadOnlySpan<byte> body)
        {
            var reader = new Utf8JsonReader(body);
            var (time, step, expected) = (0L, 0L, 0);
            while (reader.Read())
            {
                if (reader.TokenType != JsonTokenType.PropertyName)
                    continue;
                if (reader.CurrentDepth == 1)
                {
                    var which = reader.ValueSpan[0];
                    reader.Read();
                    if (which == 't')
                        time = reader.GetInt64();
                    else if (which == 's')
                        step = reader.GetInt64();
                    continue;
                }
                // One line's names are mostly those of the line before, in its order.
                var column =
                    expected < columns.Count && reader.ValueTextEquals(columns[expected].Name)
                        ? columns[expected]
                        : Named(reader.GetString()!);
                expected++;
                reader.Read();
                column.Points.Add(
                    new(
                        step,
                        reader.TokenType == JsonTokenType.Number
                            ? reader.GetDouble()
                            : double.Parse(reader.GetString()!, CultureInfo.InvariantCulture),
                        time
                    )
                );
            }
        }

        private void Old(StepRow row)
        {
            foreach (var (name, value) in Row(row))
                Named(name).Points.Add(new(row.Step, value, record.Started));
        }

        private void Old(EvalRow row)
        {
            foreach (var (name, value) in row.Values)
                Named(Run.EvalPrefix + name).Points.Add(new(row.Step, value, record.Started));
        }

        private Column Named(string name)
        {
            if (!byName.TryGetValue(name, out var column))
                columns.Add(byName[name] = column = new(name, []));
            return column;
        }

        private void Flush()
        {
            foreach (var column in columns.Where(column => column.Points.Count > 0))
            {
                if (!record.Metrics.TryGetValue(column.Name, out var metric) && record.Metrics.Count >= MostMetrics)
                    continue;
                if (metric is null)
                    record.Metrics.Add(
                        column.Name,
                        metric = new(
                            record.Metrics.Count == 0 ? 0 : record.Metrics.Values.Max(other => other.Number) + 1
                        )
                    );
                foreach (var point in column.Points)
                    metric.Add(point);
                database.Append(record, metric, column.Points);
                column.Points.Clear();
            }
        }
    }

    /// <summary>The metrics of a step, in the order in which they are written.</summary>
    internal static (string Name, double Value)[] Row(StepRow row) =>
        [
            ("loss", row.Loss),
            ("learning_rate", row.LearningRate),
            ("grad_norm", row.GradNorm),
            ("tokens", row.Tokens),
            ("tokens_per_second", row.TokensPerSecond),
            ("memory_bytes", row.MemoryBytes),
            ("seconds", row.Seconds),
        ];

    private void Append(RunRecord run, RunRecord.Metric metric, List<Point> added)
    {
        var goesOn = metric is { Chunks: > 0, Tail: < Chunk.Size };
        if (goesOn)
        {
            added.InsertRange(0, Chunk.Unpack(points.FindById(Key(run, metric, --metric.Chunks))["bin"].AsBinary));
        }
        foreach (var part in added.Chunk(Chunk.Size))
        {
            var chunk = new BsonDocument
            {
                ["_id"] = Key(run, metric, metric.Chunks++),
                ["top"] = part.Max(point => point.Step),
                ["bin"] = Chunk.Pack(part),
            };
            if (goesOn)
                points.Update(chunk);
            else
                points.Insert(chunk);
            (metric.Tail, goesOn) = (part.Length, false);
        }
    }

    /// <summary>Drops the points of steps after one. Chunks before the first that has such points stay as they are; the
    /// summary is counted anew.</summary>
    private void Cut(RunRecord run, long step)
    {
        foreach (var (name, old) in run.Metrics.Where(metric => metric.Value.LastStep > step).ToList())
        {
            var metric = new RunRecord.Metric(old.Number) { Tail = Chunk.Size };
            var kept = new List<Point>();
            var touched = false;
            foreach (var chunk in points.Find(Where(Range, Key(run, old, 0), Key(run, old, old.Chunks - 1))).ToList())
            {
                touched |= chunk["top"].AsInt64 > step;
                foreach (var point in Chunk.Unpack(chunk["bin"].AsBinary).Where(point => point.Step <= step))
                {
                    metric.Add(point);
                    if (touched)
                        kept.Add(point);
                }
                if (touched)
                    points.Delete(chunk["_id"]);
                else
                    metric.Chunks++;
            }
            if (metric.Count == 0)
                run.Metrics.Remove(name);
            else
                run.Metrics[name] = metric;
            Append(run, metric, kept);
        }
    }
}
