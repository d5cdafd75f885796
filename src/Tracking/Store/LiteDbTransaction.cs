using LiteDB;

namespace Memopt.Tracking;

/// <summary>The one transaction of a database: what is ingested is committed in few of them, as each waits for the
/// disk.</summary>
/// <param name="db">The database, whose own checkpoints are off.</param>
/// <param name="file">Its file; LiteDB's log lies beside it.</param>
internal sealed class LiteDbTransaction(LiteDatabase db, string file)
{
    private readonly string log = Path.ChangeExtension(file, null) + "-log" + Path.GetExtension(file);
    private bool within;

    /// <summary>Whether something was rolled back since the database was opened.</summary>
    public bool RolledBack { get; private set; }

    /// <summary>Begins, unless it has begun.</summary>
    public void Begin()
    {
        if (!within)
            db.BeginTrans();
        within = true;
    }

    public void Rollback()
    {
        (within, RolledBack) = (false, true);
        db.Rollback();
    }

    public void Commit()
    {
        if (!within)
            return;
        within = false;
        db.Commit();
        Checkpoint();
    }

    /// <summary>Brings what is committed into the file and onto the disk. LiteDB writes its log on a thread of its own
    /// and waits for it without end, also when it died of a full disk. So before it waits the log must be as long as it
    /// will be; asked for that length, LiteDB throws what the thread met.
    /// </summary>
    public void Checkpoint()
    {
        while (
            db.Execute("SELECT $ FROM $database").ToList()[0]["logFileSize"].AsInt64 is var length
            && File.Exists(log)
            && new FileInfo(log).Length < length
        )
            Thread.Sleep(1);
        db.Checkpoint();
    }
}
