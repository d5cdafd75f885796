using LiteDB;

namespace Memopt.Tracking;

/// <summary>The LiteDB file: made from the spools and never the only place of anything. Four collections: runs (heads,
/// all that a query reads), details, points, and state. LiteDB reads numbers only that it must order by; values of
/// metrics, which may be NaN, are bytes to it.
/// </summary>
internal sealed class RunDatabase : IDisposable
{
    /// <summary>Counts the layouts of the file. 0 had a document of rows for each 512 steps.</summary>
    public const int Schema = 1;

    private readonly LiteDatabase db;
    private readonly ILiteCollection<BsonDocument> state;

    public RunDatabase(string file, bool readOnly = false)
    {
        db = Open(file, readOnly);
        (Runs, Points, state) = (
            new(db.GetCollection("runs"), db.GetCollection("details")),
            new(db.GetCollection("points")),
            db.GetCollection("state")
        );
        Transaction = new(db, file);
        if (readOnly)
            return;
        if (db.CheckpointSize != 0)
            db.CheckpointSize = 0; // by itself LiteDB would not look whether it can: see LiteDbTransaction.Checkpoint
        if (db.UserVersion == Schema)
            return;
        Runs.EnsureIndexes();
        state.Upsert(new BsonDocument { ["_id"] = "made", ["as"] = Guid.NewGuid().ToString("N") });
        db.UserVersion = Schema;
    }

    public RunIndex Runs { get; }

    public PointChunks Points { get; }

    public LiteDbTransaction Transaction { get; }

    /// <summary>Tells this database from one that is made anew; null of older ones.</summary>
    public string? DatabaseId => state.FindById("made")?["as"].AsString;

    /// <summary>Whether everything sealed has been ingested: if so, only open spools have news.</summary>
    public bool Complete => state.FindById("complete") is not null;

    public void Dispose() => db.Dispose();

    /// <summary>The layout of a file that is there.</summary>
    public static int Version(string file)
    {
        using var db = Open(file, readOnly: true);
        return db.UserVersion;
    }

    /// <summary>Notes that everything sealed has been ingested.</summary>
    public void MarkComplete()
    {
        state.Upsert(new BsonDocument { ["_id"] = "complete" });
        Transaction.Checkpoint();
    }

    /// <summary>Removes a run.</summary>
    public void Remove(RunRecord record)
    {
        Points.Remove(record);
        Runs.Remove(record);
        Transaction.Checkpoint();
    }

    private static LiteDatabase Open(string file, bool readOnly) =>
        new(
            new ConnectionString
            {
                Filename = file,
                Connection = ConnectionType.Direct,
                ReadOnly = readOnly,
            }
        );
}
