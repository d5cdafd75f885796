using System.IO.Compression;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>Runs on their way into an archive, as far as they are written.</summary>
internal sealed class StoreExport(StoreFolder folder)
{
    /// <summary>Ids of the runs.</summary>
    public required IReadOnlyList<string> Runs { get; init; }

    public required IReadOnlyList<Experiment> Experiments { get; init; }

    /// <summary>Hashes of the artifacts that go along, of which <see cref="Artifacts"/> may lack some.</summary>
    public required IReadOnlyList<string> Hashes { get; init; }

    /// <summary>Where the artifacts are; null for an archive without them.</summary>
    public required IArtifactStore? Artifacts { get; init; }

    public required DateTimeOffset Made { get; init; }

    public void Write(string file) =>
        Spool.Place(
            file,
            stream =>
            {
                using var zip = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true);
                WriteJson(zip, ArchiveFormat.About, new ArchiveFormat.Header(ArchiveFormat.Version, Made, Runs.Count));
                WriteJson(zip, ArchiveFormat.Experiments, Experiments);
                foreach (var id in Runs)
                    WriteRun(zip, id);
                foreach (var hash in Hashes.Where(hash => Artifacts!.List().Contains(hash)))
                    WriteArtifact(zip, hash);
            }
        );

    private static void WriteJson<T>(ZipArchive zip, string name, T content)
    {
        using var entry = zip.CreateEntry(name).Open();
        JsonSerializer.Serialize(entry, content);
    }

    private void WriteRun(ZipArchive zip, string id)
    {
        // nothing is sealed or removed meanwhile; others come between runs
        using var held = folder.Hold();
        for (var number = 0; folder.Spool.Find(id, number) is { } segment; number++)
        {
            using var entry = zip.CreateEntry($"{ArchiveFormat.Spools}{id}.{number}.jsonl", CompressionLevel.Fastest)
                .Open();
            using var lines = segment.Read();
            lines.CopyTo(entry);
        }
        if (folder.Logs.Read(id) is { } log)
        {
            using var entry = zip.CreateEntry($"{ArchiveFormat.Logs}{id}.txt", CompressionLevel.Fastest).Open();
            using (log)
                log.CopyTo(entry);
        }
    }

    private void WriteArtifact(ZipArchive zip, string hash)
    {
        var temporary = Directory.CreateTempSubdirectory("memopt").FullName;
        try
        {
            Artifacts!.Get(hash, temporary);
            foreach (var path in Directory.EnumerateFiles(temporary, "*", SearchOption.AllDirectories))
            {
                var name = Path.GetRelativePath(temporary, path).Replace(Path.DirectorySeparatorChar, '/');
                zip.CreateEntryFromFile(path, $"{ArchiveFormat.Artifacts}{hash}/{name}", CompressionLevel.Fastest);
            }
        }
        finally
        {
            Directory.Delete(temporary, recursive: true);
        }
    }
}
