using System.Text;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>
/// One model in a cache of Hugging Face's layout: <c>blobs/ETAG</c>, <c>refs/BRANCH</c> with a commit in it,
/// <c>snapshots/COMMIT/PATH</c> as relative links to blobs, and locks beside the models.
/// </summary>
internal sealed class ModelCache(string root, string name)
{
    public string Root => root;

    public string Name => name;

    public string Folder { get; } = Path.Combine(root, name);

    public string Snapshot(string commit) => Path.Combine(Folder, "snapshots", ModelFiles.SafePart(commit));

    public string Blob(string etag) => Path.Combine(Folder, "blobs", ModelFiles.SafePart(etag));

    /// <summary>A blob on its way; never under the blob's own name.</summary>
    public string Part(string etag) => Blob(etag) + ".part";

    /// <summary>Whether this is a commit that is here, perhaps not whole.</summary>
    public bool Has(string commit) => !commit.Contains('/') && Directory.Exists(Snapshot(commit));

    /// <summary>The commit that a revision was at when it was last asked for.</summary>
    public string? Commit(string revision)
    {
        if (Has(revision))
            return revision;
        var file = Path.Combine(Folder, "refs", ModelFiles.Safe(revision));
        return File.Exists(file) ? UntrustedFile.ReadAllText(file, UntrustedFile.Text).Trim() : null;
    }

    public void Remember(string revision, string commit)
    {
        var file = Path.Combine(Folder, "refs", ModelFiles.Safe(revision));
        if (revision == commit || (File.Exists(file) && UntrustedFile.ReadAllText(file, UntrustedFile.Text) == commit))
            return;
        Write(file, commit);
    }

    /// <summary>Shows a blob under its name in a snapshot.</summary>
    public void Link(string commit, RemoteFile file)
    {
        var path = Path.Combine(Snapshot(commit), ModelFiles.Safe(file.Path));
        var target = Path.Combine([.. Enumerable.Repeat("..", 2 + file.Path.Count(c => c == '/')), "blobs", file.Blob]);
        if (new FileInfo(path).LinkTarget == target)
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.Delete(path);
        try
        {
            // Whole at once: a link under a staged name would stay in the snapshot after a kill.
            File.CreateSymbolicLink(path, target);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (new FileInfo(path).LinkTarget == target)
                return; // another process made it
            using var staged = StagedPath.Beside(path);
            File.Copy(Blob(file.Blob), staged.Path); // Windows without the right to make links
            staged.MoveTo(path);
        }
    }

    /// <summary>Waits until no other process works on a blob. It is the lock that Hugging Face's Python client takes
    /// (flock on the same file), and it ends with its process, however that ends.
    /// </summary>
    public Task<FileStream> LockAsync(string etag, TimeProvider clock, Action waiting, CancellationToken stop) =>
        FileLock.TakeAsync(LockFile(etag), Timeout.InfiniteTimeSpan, clock, waiting, stop);

    public FileStream? TryLock(string etag) => FileLock.TryTake(LockFile(etag));

    /// <summary>Writes a small file whole. One process at a time does: its staged name is always the same, so that a
    /// kill leaves no second one.</summary>
    private void Write(string file, string text)
    {
        using var one = FileLock.Take(LockFile("memopt"), () => { }, CancellationToken.None);
        Directory.CreateDirectory(Own);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        using var staged = new StagedPath(Path.Combine(Own, "staged"));
        File.WriteAllText(staged.Path, text, new UTF8Encoding(false));
        staged.MoveTo(file);
    }

    private string LockFile(string etag)
    {
        var file = Path.Combine(root, ".locks", name, ModelFiles.SafePart(etag) + ".lock");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        return file;
    }

    /// <summary>What a blob must hash to: its name says it, or a file beside it.</summary>
    public Digest? Expected(string etag)
    {
        if (Digest.OfBlobName(etag) is { } named)
            return named;
        var note = Blob(etag) + ".sha256";
        return File.Exists(note) ? new("sha256", UntrustedFile.ReadAllText(note, UntrustedFile.Text).Trim()) : null;
    }

    public void Note(string etag, Digest hash) => File.WriteAllText(Blob(etag) + ".sha256", hash.Hex);

    /// <summary>The files that a source was found to mean at a commit; null until all of them were here once.</summary>
    public IReadOnlyList<string>? Chosen(string commit, string source) =>
        File.Exists(ChosenFile(commit, source))
            ? [.. File.ReadLines(ChosenFile(commit, source)).Select(ModelFiles.Safe)]
            : null;

    public void Choose(string commit, string source, IReadOnlyList<string> files) =>
        Write(ChosenFile(commit, source), string.Concat(files.Select(name => name + "\n")));

    // Beside the layout that is shared, as a snapshot does not tell whether it has all that was asked for.
    private string Own => Path.Combine(Folder, ".memopt");

    private string ChosenFile(string commit, string source) =>
        Path.Combine(Own, $"{ModelFiles.SafePart(commit)}-{CacheKey.Of(source)[..12]}");

    /// <summary>Files of a snapshot with the blobs that they are.</summary>
    public IEnumerable<(string Path, long Size, string Blob)> Files(string commit)
    {
        var folder = Snapshot(commit);
        if (!Directory.Exists(folder))
            yield break;
        foreach (
            var file in Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)
        )
        {
            var real = new FileInfo(file).ResolveLinkTarget(returnFinalTarget: true) as FileInfo ?? new FileInfo(file);
            if (real.Exists)
                yield return (Path.GetRelativePath(folder, file).Replace('\\', '/'), real.Length, real.Name);
        }
    }
}
