namespace Memopt.Tracking;

/// <summary>What trainings printed: a text beside the record of each run, found by the run's id alone and never by a
/// path that a record names.</summary>
/// <param name="folder">The folder of the texts.</param>
internal sealed class RunLogs(string folder)
{
    /// <summary>Goes on with a run's text, or with that of one of its other ranks. Throws <see cref="IOException"/> or
    /// <see cref="UnauthorizedAccessException"/> where it cannot be written.</summary>
    public StreamWriter Append(string id, int rank)
    {
        Directory.CreateDirectory(folder);
        return new StreamWriter(
            new FileStream(PathOf(id, rank), FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete)
        )
        {
            AutoFlush = true,
        };
    }

    /// <summary>A run's text as far as it is written, or null when there is none.</summary>
    public Stream? Read(string id) =>
        Spool.IsId(id) && File.Exists(PathOf(id))
            ? new FileStream(PathOf(id), FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete)
            : null;

    /// <summary>Replaces a run's text.</summary>
    public void Replace(string id, Stream text)
    {
        Directory.CreateDirectory(folder);
        Spool.Place(PathOf(id), text.CopyTo);
    }

    public void Remove(string id)
    {
        if (!Spool.IsId(id) || !Directory.Exists(folder))
            return;
        File.Delete(PathOf(id));
        foreach (var other in Directory.EnumerateFiles(folder, $"{id}{RankMark}*.txt"))
            File.Delete(other);
    }

    // No id has a point in it.
    private const string RankMark = ".rank-";

    private string PathOf(string id, int rank = 0) =>
        Path.Combine(
            folder,
            (Spool.IsId(id) ? id : throw new TrackingException($"\"{id}\" cannot be a run's id.") { Failed = false })
                + (rank == 0 ? "" : $"{RankMark}{rank}")
                + ".txt"
        );
}
