using System.Text.Json;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>Artifacts in a folder: content under objects/, and for each artifact a manifest of its files under
/// manifests/.</summary>
/// <param name="folder">Where everything lies.</param>
/// <param name="clock">Time; the system's when null.</param>
public sealed class LocalArtifacts(string folder, TimeProvider? clock = null) : IArtifactStore
{
    private readonly TimeProvider clock = clock ?? TimeProvider.System;

    /// <summary>Where everything lies.</summary>
    public string Folder => folder;

    private sealed record Noted(string Place, Upload Upload);

    private string Manifests => Path.Combine(folder, "manifests");

    public ArtifactLink Put(string name, string path) =>
        Guard(() =>
        {
            var (manifest, sources) = Manifest.Of(path);
            // What is there already is read, too: else content that was damaged could not be repaired by storing it
            // once more.
            foreach (var (hash, file) in sources.Where(source => !Whole(source.Key)))
                Place(
                    Object(hash),
                    stream =>
                    {
                        using var source = File.OpenRead(file);
                        source.CopyTo(stream);
                    }
                );
            Add(manifest);
            return new ArtifactLink(name, manifest.Hash, manifest.Bytes, path);
        });

    public void Get(string hash, string intoFolder) =>
        Guard(() =>
        {
            var root = Path.GetFullPath(intoFolder) + Path.DirectorySeparatorChar;
            Directory.CreateDirectory(root);
            foreach (var entry in Read(hash).Files)
            {
                var target = Path.GetFullPath(Path.Combine(root, entry.Path));
                if (!target.StartsWith(root, StringComparison.Ordinal))
                    throw new TrackingException($"Artifact {hash} names a file outside its folder: {entry.Path}");
                if (!Whole(entry.Hash))
                    throw new TrackingException($"Artifact {hash}: {Fault(entry)}")
                    {
                        Next =
                            "store an undamaged copy again: dotnet memopt artifacts put; or name the "
                            + "storage account that has it: --at",
                    };
                try
                {
                    Place(
                        target,
                        stream =>
                        {
                            using var source = File.OpenRead(Object(entry.Hash));
                            source.CopyTo(stream);
                        }
                    );
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    throw new TrackingException($"{entry.Path} cannot be written to {intoFolder}: {e.Message}", e)
                    {
                        Next = "make room for it there, or name another folder",
                    };
                }
            }
            return true;
        });

    /// <summary>An artifact's files in a folder of their own, for use; made once, and gone with the artifact. They must
    /// not be changed.</summary>
    public string Unpacked(string hash) =>
        Guard(() =>
        {
            var target = UnpackedAt(hash);
            if (Directory.Exists(target))
                return target;
            using var staged = StagedPath.Beside(target);
            Get(hash, staged.Path);
            try
            {
                staged.MoveTo(target);
            }
            catch (IOException) when (Directory.Exists(target))
            {
                // Another process was first.
            }
            return target;
        });

    public IReadOnlyList<string> List() =>
        !Directory.Exists(Manifests)
            ? []
            :
            [
                .. Directory
                    .EnumerateFiles(Manifests)
                    .Select(file => Path.GetFileName(file))
                    .Where(Manifest.IsHash)
                    .Order(StringComparer.Ordinal),
            ];

    public IReadOnlyList<ArtifactFile> Files(string hash) => Guard(() => Read(hash).Files);

    /// <summary>The content of one file of an artifact, by the path that its manifest gives it: no other path leads
    /// anywhere. Not checked against its hash, which <see cref="Verify"/> does. Throws <see cref="TrackingException"/>
    /// when the artifact has no such file or its content is not here.
    /// </summary>
    public Stream Open(string hash, string path) =>
        Guard(() =>
        {
            var entry =
                Read(hash).Files.FirstOrDefault(file => file.Path == path)
                ?? throw new TrackingException($"Artifact {hash} has no file {path}.") { Failed = false };
            return File.Exists(Object(entry.Hash))
                ? File.OpenRead(Object(entry.Hash))
                : throw new TrackingException($"Artifact {hash}: {Fault(entry)}");
        });

    public IReadOnlyList<string> Verify(string hash) =>
        Guard(() => Read(hash).Files.Where(entry => !Whole(entry.Hash)).Select(Fault).ToList());

    public void Delete(string hash) =>
        Guard(() =>
        {
            var mine = Read(hash).Files.Select(entry => entry.Hash).ToHashSet();
            File.Delete(PathOf(hash));
            foreach (var other in List())
                mine.ExceptWith(Read(other).Files.Select(entry => entry.Hash));
            foreach (var orphan in mine)
                File.Delete(Object(orphan));
            if (Directory.Exists(UnpackedAt(hash)))
                Directory.Delete(UnpackedAt(hash), recursive: true);
            return true;
        });

    /// <summary>A new folder on the disk of the artifacts, for what is to be put there; whoever asked removes it. What
    /// others left for a day is removed.</summary>
    public string Incoming() =>
        Guard(() =>
        {
            var all = Directory.CreateDirectory(Path.Combine(folder, "incoming"));
            foreach (
                var left in all.EnumerateDirectories()
                    .Where(left => left.LastWriteTimeUtc < clock.GetUtcNow().AddDays(-1))
            )
                left.Delete(recursive: true);
            return all.CreateSubdirectory(Guid.NewGuid().ToString("N")).FullName;
        });

    /// <summary>Notes what is to be sent to a storage account.</summary>
    internal void Note(Upload upload, BlobLocation location) =>
        Guard(() =>
        {
            Place(
                NoteOf(upload),
                stream => JsonSerializer.Serialize(stream, new Noted(location.ToString(), upload), LiteRunStore.Json)
            );
            return true;
        });

    /// <summary>What is still to be sent to a storage account, oldest first.</summary>
    internal IReadOnlyList<Upload> Notes(BlobLocation location) =>
        Guard(() =>
        {
            var notes = new DirectoryInfo(Path.Combine(folder, "pending"));
            return (notes.Exists ? notes.GetFiles("*.json") : [])
                .OrderBy(file => file.LastWriteTimeUtc)
                .Select(Read)
                .OfType<Noted>()
                .Where(noted => noted.Place == location.ToString())
                .Select(noted => noted.Upload)
                .ToList();

            // One that cannot be read is another process's that goes just now, or is of no use.
            static Noted? Read(FileInfo file)
            {
                try
                {
                    return JsonSerializer.Deserialize<Noted>(File.ReadAllBytes(file.FullName), LiteRunStore.Json);
                }
                catch (Exception e) when (e is JsonException or FileNotFoundException)
                {
                    return null;
                }
            }
        });

    /// <summary>Takes a note away; that it stays does no harm.</summary>
    internal void Forget(Upload upload)
    {
        try
        {
            File.Delete(NoteOf(upload));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // What is there is not sent twice.
        }
    }

    internal bool Has(string hash) => File.Exists(PathOf(hash));

    internal Manifest Read(string hash)
    {
        if (!Manifest.IsHash(hash) || !Has(hash))
            throw new TrackingException($"There is no artifact {hash} in {folder}.") { Failed = false };
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

    /// <summary>Whether content is here and is what it was.</summary>
    internal bool Whole(string hash) => File.Exists(Object(hash)) && Sha256.OfFile(Object(hash)) == hash;

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

    private string Fault(ArtifactFile entry) =>
        $"the content of {entry.Path} is missing or was changed ({Object(entry.Hash)}).";

    private string UnpackedAt(string hash) => Path.Combine(folder, "unpacked", hash);

    private string NoteOf(Upload upload) => Path.Combine(folder, "pending", $"{upload.Run}.{upload.Link.Name}.json");

    private string PathOf(string hash) => Path.Combine(Manifests, hash);

    private static void Place(string target, Action<Stream> write)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        using var staged = StagedPath.Beside(target);
        staged.Write(write);
        staged.MoveTo(target);
    }
}
