using LiteDB;

namespace Memopt.Tracking;

/// <summary>The runs of a database: heads, which are all that a query reads, and details apart from them.</summary>
internal sealed class RunIndex(ILiteCollection<BsonDocument> heads, ILiteCollection<BsonDocument> details)
{
    private long? highest;

    /// <summary>Makes the indexes of a new database.</summary>
    public void EnsureIndexes()
    {
        heads.EnsureIndex("id");
        heads.EnsureIndex("at");
    }

    /// <summary>A run by its whole id; null when there is none.</summary>
    public RunRecord? Find(string id, bool withDetails = true)
    {
        var found = heads
            .Find(LiteDbQuery.Where("id = @0", id))
            .ToList()
            .FirstOrDefault(document => document["id"].AsString == id);
        if (found is null)
            return null;
        var record = Head(found);
        if (withDetails)
            LoadDetails(record);
        return record;
    }

    /// <summary>A run that is not in the database, under the next number.</summary>
    public RunRecord New(string id)
    {
        highest ??= heads.Find(Query.All("_id", Query.Descending), limit: 1).FirstOrDefault()?["_id"].AsInt64 ?? 0;
        return new() { Id = id, Number = (++highest).Value };
    }

    /// <summary>Ids that begin so.</summary>
    public List<string> Ids(string prefix) =>
        [
            .. heads
                .Find(LiteDbQuery.Where("id LIKE @0", prefix + "%"))
                .Select(document => document["id"].AsString)
                .Where(id => id.StartsWith(prefix, StringComparison.Ordinal))
                .Order(StringComparer.Ordinal),
        ];

    /// <summary>All heads, newest first; runs of one instant by id.</summary>
    public IEnumerable<RunRecord> Heads(CancellationToken stop = default)
    {
        var simultaneous = new List<RunRecord>();
        foreach (var document in heads.Find(Query.All("at", Query.Descending)))
        {
            stop.ThrowIfCancellationRequested();
            var record = Head(document);
            if (simultaneous.Count > 0 && simultaneous[0].Started != record.Started)
            {
                foreach (var one in simultaneous.OrderBy(one => one.Id, StringComparer.Ordinal))
                    yield return one;
                simultaneous.Clear();
            }
            simultaneous.Add(record);
        }
        foreach (var one in simultaneous.OrderBy(one => one.Id, StringComparer.Ordinal))
            yield return one;
    }

    /// <summary>How far each run's spool has been ingested, by id.</summary>
    public Dictionary<string, (int Segment, long Offset)> Reached() =>
        heads
            .FindAll()
            .ToDictionary(
                run => run["id"].AsString,
                run => (Segment: run["segment"].AsInt32, Offset: run["offset"].AsInt64)
            );

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
            : later.AsDocument.Select(pair => (pair.Key, pair.Value)); // a document in older files
        foreach (var (key, value) in pairs)
            record.Later[key] = value.IsString ? value.AsString : null;
    }

    public void SaveHead(RunRecord record) =>
        heads.Upsert(
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

    public void SaveDetails(RunRecord record) =>
        details.Upsert(
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

    public void Remove(RunRecord record)
    {
        details.Delete(record.Number);
        heads.Delete(record.Number);
    }

    private static RunRecord Head(BsonDocument document)
    {
        var record = new RunRecord
        {
            Id = document["id"].AsString,
            Number = document["_id"].AsInt64,
            Segment = document["segment"].AsInt32,
            Offset = document["offset"].AsInt64,
        };
        record.UnpackHead(document["head"].AsBinary);
        return record;
    }
}
