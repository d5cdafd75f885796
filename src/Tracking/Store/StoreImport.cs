using System.IO.Compression;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>Brings runs of an archive, or of another store's folder, into a store.</summary>
internal sealed class StoreImport(StoreFolder folder, Experiments experiments)
{
    public Imported FromFolder(string path)
    {
        if (!Directory.Exists(Path.Combine(path, "spool")))
            throw new TrackingException($"{path} is no folder of a run store.")
            {
                Failed = false,
                Next = "name the store's own folder, such as .memopt/store",
            };
        var other = new StoreFolder(path, TimeProvider.System);
        var (taken, known) = new SpoolMerge(folder).Merge(
            other
                .Spool.Segments(all: true)
                .Select(segment => new SpoolMerge.Source(segment.Run, segment.Number, () => segment.Read()))
        );
        TakeLogs(taken, other.Logs.Read);
        experiments.Take(new LiteRunStore(path).Experiments.Read());
        return new Imported(taken, known, 0);
    }

    /// <param name="path">A zip file that <see cref="StoreExport"/> wrote.</param>
    /// <param name="artifacts">Where its artifacts go; null to leave them out.</param>
    public Imported FromArchive(string path, IArtifactStore? artifacts)
    {
        using var zip = ZipFile.OpenRead(path);
        CheckFormat(zip, path);
        var (taken, known) = new SpoolMerge(folder).Merge(Segments(zip));
        TakeLogs(taken, id => zip.GetEntry($"{ArchiveFormat.Logs}{id}.txt")?.Open());
        TakeExperiments(zip);
        return new Imported(taken, known, artifacts is null ? 0 : TakeArtifacts(zip, path, artifacts));
    }

    private static void CheckFormat(ZipArchive zip, string path)
    {
        using var about =
            zip.GetEntry(ArchiveFormat.About)?.Open()
            ?? throw new TrackingException($"{path} is no archive of runs.") { Failed = false };
        if (JsonSerializer.Deserialize<ArchiveFormat.Header>(about) is not { Format: <= ArchiveFormat.Version })
            throw new TrackingException($"{path} was made by a newer memopt. Update the tool.") { Failed = false };
    }

    private static IEnumerable<SpoolMerge.Source> Segments(ZipArchive zip) =>
        zip
            .Entries.Where(entry => entry.FullName.StartsWith(ArchiveFormat.Spools, StringComparison.Ordinal))
            .Select(entry => (Parts: entry.Name.Split('.'), entry))
            .Where(one => one.Parts.Length == 3 && Spool.IsId(one.Parts[0]) && int.TryParse(one.Parts[1], out _))
            .Select(one => new SpoolMerge.Source(one.Parts[0], int.Parse(one.Parts[1]), one.entry.Open));

    /// <summary>Takes the texts of runs that had news.</summary>
    private void TakeLogs(IEnumerable<string> runs, Func<string, Stream?> open)
    {
        foreach (var run in runs)
        {
            using var text = open(run);
            if (text is not null)
                folder.Logs.Replace(run, text);
        }
    }

    private void TakeExperiments(ZipArchive zip)
    {
        using var entry = zip.GetEntry(ArchiveFormat.Experiments)?.Open();
        experiments.Take(entry is null ? [] : JsonSerializer.Deserialize<List<Experiment>>(entry)!);
    }

    /// <summary>Stores the artifacts of an archive, and returns how many there were.</summary>
    private static int TakeArtifacts(ZipArchive zip, string path, IArtifactStore artifacts)
    {
        var stored = 0;
        foreach (
            var artifact in zip
                .Entries.Where(entry => entry.FullName.StartsWith(ArchiveFormat.Artifacts, StringComparison.Ordinal))
                .GroupBy(entry => entry.FullName.Split('/')[1])
        )
        {
            var temporary = Directory.CreateTempSubdirectory("memopt").FullName;
            try
            {
                foreach (var entry in artifact)
                    Extract(entry, artifact.Key, temporary, path);
                if (artifacts.Put(artifact.Key, temporary).Hash != artifact.Key)
                    throw new TrackingException($"{path}: the content of artifact {artifact.Key} was changed.")
                    {
                        Failed = false,
                    };
                stored++;
            }
            finally
            {
                Directory.Delete(temporary, recursive: true);
            }
        }
        return stored;
    }

    private static void Extract(ZipArchiveEntry entry, string artifact, string target, string archive)
    {
        var file = Path.GetFullPath(
            Path.Combine(target, entry.FullName[(ArchiveFormat.Artifacts.Length + artifact.Length + 1)..])
        );
        if (!file.StartsWith(target + Path.DirectorySeparatorChar, StringComparison.Ordinal))
            throw new TrackingException($"{archive} names a file outside its folder: {entry.FullName}")
            {
                Failed = false,
            };
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        entry.ExtractToFile(file);
    }
}
