namespace Memopt.Tracking;

/// <summary>What a training printed: a text beside the record of its run, found by the run's id alone and never by a
/// path that a record names.</summary>
public sealed partial class LiteRunStore
{
    private string Logs => Path.Combine(folder, "logs");

    /// <summary>Goes on with a run's text. Throws <see cref="IOException"/> or
    /// <see cref="UnauthorizedAccessException"/> where it cannot be written.</summary>
    public StreamWriter AppendLog(string id)
    {
        Directory.CreateDirectory(Logs);
        return new StreamWriter(
            new FileStream(LogOf(id), FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete)
        )
        {
            AutoFlush = true,
        };
    }

    /// <summary>A run's text as far as it is written, or null when there is none.</summary>
    public Stream? ReadLog(string id) =>
        Spool.IsId(id) && File.Exists(LogOf(id))
            ? new FileStream(LogOf(id), FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete)
            : null;

    private string LogOf(string id) =>
        Path.Combine(
            Logs,
            (Spool.IsId(id) ? id : throw new TrackingException($"\"{id}\" cannot be a run's id.") { Failed = false })
                + ".txt"
        );
}
