namespace Memopt.Hub;

/// <summary>A model that is here, and what exactly it is: what a run records.</summary>
/// <param name="Source">Where it came from, without secrets.</param>
/// <param name="Folder">Its files.</param>
/// <param name="Commit">The commit it is pinned to; null for a folder of the user's.</param>
/// <param name="Files">Its files with sizes and hashes; empty for a folder of the user's.</param>
/// <param name="FetchedBytes">What came over the network for them just now.</param>
/// <param name="ResumedBytes">Bytes that a previous, unfinished download had left.</param>
public sealed record Snapshot(
    string Source,
    string Folder,
    string? Commit,
    IReadOnlyList<LocalFile> Files,
    long FetchedBytes = 0,
    long ResumedBytes = 0
)
{
    /// <summary>What a cache has of a commit.</summary>
    internal static Snapshot Of(string source, ModelCache cache, string commit) =>
        new(
            source,
            cache.Snapshot(commit),
            commit,
            [
                .. cache
                    .Files(commit)
                    .Select(file => new LocalFile(
                        file.Path,
                        file.Size,
                        (cache.Expected(file.Blob) ?? new Digest("etag", file.Blob)).ToString()
                    )),
            ]
        );
}

/// <summary>One file of a model.</summary>
/// <param name="Path">Inside the model.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Hash">What it was checked against: sha256:…, git-sha1:….</param>
public sealed record LocalFile(string Path, long Size, string Hash);

/// <summary>Receives the progress of a download; from several threads.</summary>
public interface IPullWatcher
{
    /// <summary>Something that a user may want to know.</summary>
    void Note(string text);

    /// <summary>A file's bytes so far; <paramref name="resumed"/> of them were there before.</summary>
    void Advance(string file, long done, long size, long resumed);
}
