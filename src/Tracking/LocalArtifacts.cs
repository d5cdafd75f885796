namespace Memopt.Tracking;

/// <summary>Artifacts in a folder: content under objects/, and for each artifact a manifest of its files under manifests/.</summary>
public sealed class LocalArtifacts(string folder) : IArtifactStore
{
    private string Manifests => Path.Combine(folder, "manifests");

    public ArtifactLink Put(string name, string path) => Guard(() =>
    {
        var (manifest, sources) = Manifest.Of(path);
        foreach (var (hash, file) in sources.Where(source => !File.Exists(Object(source.Key))))
            Place(Object(hash), stream => { using var source = File.OpenRead(file); source.CopyTo(stream); });
        Add(manifest);
        return new ArtifactLink(name, manifest.Hash, manifest.Bytes, path);
    });

    public void Get(string hash, string intoFolder) => Guard(() =>
    {
        var root = Path.GetFullPath(intoFolder) + Path.DirectorySeparatorChar;
        foreach (var entry in Read(hash).Files)
        {
            var target = Path.GetFullPath(Path.Combine(root, entry.Path));
            if (!target.StartsWith(root, StringComparison.Ordinal))
                throw new TrackingException($"Artifact {hash} names a file outside its folder: {entry.Path}");
            if (!Whole(entry))
                throw new TrackingException($"Artifact {hash}: {Fault(entry)}");
            Place(target, stream => { using var source = File.OpenRead(Object(entry.Hash)); source.CopyTo(stream); });
        }
        return true;
    });

    public IReadOnlyList<string> List() => !Directory.Exists(Manifests) ? []
        : [.. Directory.EnumerateFiles(Manifests).Select(file => Path.GetFileName(file)).Where(Manifest.IsHash).Order(StringComparer.Ordinal)];

    public IReadOnlyList<ArtifactFile> Files(string hash) => Guard(() => Read(hash).Files);

    public IReadOnlyList<string> Verify(string hash) => Guard(() => Read(hash).Files.Where(entry => !Whole(entry)).Select(Fault).ToList());

    public void Delete(string hash) => Guard(() =>
    {
        var mine = Read(hash).Files.Select(entry => entry.Hash).ToHashSet();
        File.Delete(PathOf(hash));
        foreach (var other in List())
            mine.ExceptWith(Read(other).Files.Select(entry => entry.Hash));
        foreach (var orphan in mine)
            File.Delete(Object(orphan));
        return true;
    });

    internal bool Has(string hash) => File.Exists(PathOf(hash));

    internal Manifest Read(string hash)
    {
        if (!Manifest.IsHash(hash) || !Has(hash))
            throw new TrackingException($"There is no artifact {hash} in {folder}.");
        return Manifest.Read(File.ReadAllBytes(PathOf(hash)), hash, PathOf(hash));
    }

    /// <summary>Makes an artifact of content that is here.</summary>
    internal void Add(Manifest manifest)
    {
        if (!Has(manifest.Hash))
            Place(PathOf(manifest.Hash), stream => stream.Write(manifest.Content));
    }

    /// <summary>Where content lies, or would.</summary>
    internal string Object(string hash) => Path.Combine(folder, "objects", hash[..2], hash);

    /// <summary>Whether a file's content is here and is what it was.</summary>
    internal bool Whole(ArtifactFile entry) => File.Exists(Object(entry.Hash)) && Manifest.HashOf(Object(entry.Hash)) == entry.Hash;

    internal T Guard<T>(Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TrackingException($"The artifacts in {folder} cannot be used: {e.Message}", e);
        }
    }

    private string Fault(ArtifactFile entry) => $"the content of {entry.Path} is missing or was changed ({Object(entry.Hash)}).";

    private string PathOf(string hash) => Path.Combine(Manifests, hash);

    private static void Place(string target, Action<Stream> write)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        var staged = target + "." + Guid.NewGuid().ToString("N");
        using (var stream = new FileStream(staged, FileMode.CreateNew))
        {
            write(stream);
            stream.Flush(flushToDisk: true);
        }
        File.Move(staged, target, overwrite: true);
    }
}
