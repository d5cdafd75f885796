using System.Security.Cryptography;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>Artifacts in a folder: content under objects/, and for each artifact a manifest of its files under manifests/.</summary>
public sealed class LocalArtifacts(string folder) : IArtifactStore
{
    private static readonly JsonSerializerOptions json = new() { WriteIndented = true };

    private sealed record Entry(string Path, string Hash, long Bytes);

    private string Manifests => Path.Combine(folder, "manifests");

    public ArtifactLink Put(string name, string path) => Guard(() =>
    {
        var root = Directory.Exists(path) ? path : Path.GetDirectoryName(path)!;
        var files = Directory.Exists(path) ? Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories) : [path];
        var entries = files.Order(StringComparer.Ordinal).Select(file =>
        {
            var hash = Hash(file);
            var target = Object(hash);
            if (!File.Exists(target))
                Place(target, stream => { using var source = File.OpenRead(file); source.CopyTo(stream); });
            return new Entry(Path.GetRelativePath(root, file).Replace('\\', '/'), hash, new FileInfo(file).Length);
        }).ToList();
        var manifest = JsonSerializer.SerializeToUtf8Bytes(entries, json);
        var id = Convert.ToHexStringLower(SHA256.HashData(manifest));
        if (!File.Exists(Manifest(id)))
            Place(Manifest(id), stream => stream.Write(manifest));
        return new ArtifactLink(name, id, entries.Sum(entry => entry.Bytes), path);
    });

    public void Get(string hash, string intoFolder) => Guard(() =>
    {
        var root = Path.GetFullPath(intoFolder) + Path.DirectorySeparatorChar;
        foreach (var entry in Read(hash))
        {
            var target = Path.GetFullPath(Path.Combine(root, entry.Path));
            if (!target.StartsWith(root, StringComparison.Ordinal))
                throw new TrackingException($"Artifact {hash} names a file outside its folder: {entry.Path}");
            if (!File.Exists(Object(entry.Hash)) || Hash(Object(entry.Hash)) != entry.Hash)
                throw new TrackingException($"Artifact {hash}: the content of {entry.Path} is missing or was changed ({Object(entry.Hash)}).");
            Place(target, stream => { using var source = File.OpenRead(Object(entry.Hash)); source.CopyTo(stream); });
        }
        return true;
    });

    public IReadOnlyList<string> List() => !Directory.Exists(Manifests) ? []
        : [.. Directory.EnumerateFiles(Manifests).Select(file => Path.GetFileName(file)).Where(name => name.Length == 64).Order(StringComparer.Ordinal)];

    public void Delete(string hash) => Guard(() =>
    {
        var mine = Read(hash).Select(entry => entry.Hash).ToHashSet();
        File.Delete(Manifest(hash));
        foreach (var other in List())
            mine.ExceptWith(Read(other).Select(entry => entry.Hash));
        foreach (var orphan in mine)
            File.Delete(Object(orphan));
        return true;
    });

    private List<Entry> Read(string hash)
    {
        if (hash.Length != 64 || !hash.All(char.IsAsciiHexDigitLower) || !File.Exists(Manifest(hash)))
            throw new TrackingException($"There is no artifact {hash} in {folder}.");
        try
        {
            return JsonSerializer.Deserialize<List<Entry>>(File.ReadAllBytes(Manifest(hash)), json)!;
        }
        catch (JsonException e)
        {
            throw new TrackingException($"The manifest {Manifest(hash)} cannot be read: {e.Message}", e);
        }
    }

    private string Manifest(string hash) => Path.Combine(Manifests, hash);

    private string Object(string hash) => Path.Combine(folder, "objects", hash[..2], hash);

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

    private static string Hash(string file)
    {
        using var stream = File.OpenRead(file);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private T Guard<T>(Func<T> action)
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
}
