using LiteDB;

namespace Memopt.Tracking;

/// <summary>The points of all runs, in chunks whose keys are run, metric and place in one number, so that a curve is
/// contiguous.</summary>
internal sealed class PointChunks(ILiteCollection<BsonDocument> chunks)
{
    private const int ChunkBits = 24,
        RunShift = 40;

    private const string Range = "_id BETWEEN @0 AND @1";

    /// <summary>Curves read, for the test that lists do not read them.</summary>
    public int Reads { get; private set; }

    /// <summary>A metric's points in order of step, of several at one step as written.</summary>
    /// <param name="record">The run.</param>
    /// <param name="metric">Its metric; one that it does not have has no points.</param>
    /// <param name="after">The step after which they begin; null for all.</param>
    public IEnumerable<Point> Read(RunRecord record, string metric, long? after = null)
    {
        if (!record.Metrics.TryGetValue(metric, out var known))
            return [];
        Reads++;
        var sorted = true;
        var all = new List<Point>();
        foreach (var chunk in Chunks(record, known))
        {
            if (chunk["top"].AsInt64 <= after)
                continue;
            foreach (var point in Unpack(chunk))
            {
                if (point.Step <= after)
                    continue;
                sorted &= all.Count == 0 || all[^1].Step <= point.Step;
                all.Add(point);
            }
        }
        return sorted ? all : all.OrderBy(point => point.Step);
    }

    /// <summary>A metric's points in the order in which they were written.</summary>
    public IEnumerable<Point> ReadAsWritten(RunRecord record, RunRecord.Metric metric) =>
        Chunks(record, metric).SelectMany(Unpack);

    /// <summary>Appends points to a metric, the last chunk first filled up.</summary>
    public void Append(RunRecord run, RunRecord.Metric metric, List<Point> added)
    {
        var fillsUp = metric is { Chunks: > 0, Tail: < Chunk.Size };
        if (fillsUp)
            added.InsertRange(0, Unpack(chunks.FindById(Key(run, metric, --metric.Chunks))));
        foreach (var part in added.Chunk(Chunk.Size))
        {
            var chunk = new BsonDocument
            {
                ["_id"] = Key(run, metric, metric.Chunks++),
                ["top"] = part.Max(point => point.Step),
                ["bin"] = Chunk.Pack(part),
            };
            if (fillsUp)
                chunks.Update(chunk);
            else
                chunks.Insert(chunk);
            (metric.Tail, fillsUp) = (part.Length, false);
        }
    }

    /// <summary>Drops the points of steps after one. Chunks before the first that has such points stay as they are; the
    /// summary is counted anew.</summary>
    public void Cut(RunRecord run, long step)
    {
        foreach (var (name, old) in run.Metrics.Where(metric => metric.Value.LastStep > step).ToList())
        {
            var metric = new RunRecord.Metric(old.Number) { Tail = Chunk.Size };
            var kept = new List<Point>();
            var touched = false;
            foreach (var chunk in Chunks(run, old).ToList())
            {
                touched |= chunk["top"].AsInt64 > step;
                foreach (var point in Unpack(chunk).Where(point => point.Step <= step))
                {
                    metric.Add(point);
                    if (touched)
                        kept.Add(point);
                }
                if (touched)
                    chunks.Delete(chunk["_id"]);
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

    /// <summary>Removes all points of a run.</summary>
    public void Remove(RunRecord record) =>
        chunks.DeleteMany(LiteDbQuery.Where(Range, record.Number << RunShift, ((record.Number + 1) << RunShift) - 1));

    private IEnumerable<BsonDocument> Chunks(RunRecord record, RunRecord.Metric metric) =>
        chunks.Find(LiteDbQuery.Where(Range, Key(record, metric, 0), Key(record, metric, metric.Chunks - 1)));

    private static List<Point> Unpack(BsonDocument chunk) => Chunk.Unpack(chunk["bin"].AsBinary);

    /// <summary>23 bits of run, 16 of metric, 24 of chunk.</summary>
    private static long Key(RunRecord run, RunRecord.Metric metric, int chunk) =>
        (run.Number << RunShift) | ((long)metric.Number << ChunkBits) | (uint)chunk;
}
