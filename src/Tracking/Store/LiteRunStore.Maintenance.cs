using System.Buffers;
using System.IO.Compression;
using System.Text;
using System.Text.Json;
using JsonSerializer = System.Text.Json.JsonSerializer;

namespace Memopt.Tracking;

/// <summary>Something wrong with a store.</summary>
/// <param name="File">Where.</param>
/// <param name="Text">What.</param>
/// <param name="Mended">Whether it was repaired.</param>
public sealed record StoreProblem(string File, string Text, bool Mended);

/// <summary>What an import brought.</summary>
/// <param name="Runs">Runs that were new or had news.</param>
/// <param name="Known">Runs that were all here already.</param>
/// <param name="Artifacts">Artifacts stored.</param>
public sealed record Imported(IReadOnlyList<string> Runs, int Known, int Artifacts);

/// <summary>Looking after a store: check and repair, removal, one file to carry it in.</summary>
public sealed partial class LiteRunStore
{
    private const string About = "memopt-runs.json",
        Lines = "spool/",
        Texts = "logs/",
        Content = "artifacts/",
        Sets = "experiments.json";
    private const int Format = 1;

    private sealed record Archive(int Format, DateTimeOffset Made, int Runs);

    /// <summary>Reads everything there is and says what is wrong: lines torn in the midst, sealed segments that cannot
    /// be read, points that do not unpack or do not add up, heads that are not what the runs began and ended with. A
    /// repair writes damaged spools anew from the database, and a damaged database anew from the spools; what is
    /// replaced stays under another name.
    /// </summary>
    public IReadOnlyList<StoreProblem> Check(bool repair)
    {
        using var held =
            Hold(Environment.TickCount64 + Patience)
            ?? throw new TrackingException($"The run store at {folder} cannot be written, so it cannot be checked.");
        return Guard(() =>
        {
            spool.Create();
            var problems = new List<StoreProblem>();
            var broken = Broken();
            if (broken is not null)
                problems.Add(new(database, broken, repair));
            if (Experiments.Check(repair) is { } experiments)
                problems.Add(experiments);
            foreach (var run in spool.Segments(all: true).GroupBy(segment => segment.Run))
            {
                var damaged = run.Select(segment => (segment, Fault: Fault(segment)))
                    .Where(one => one.Fault is not null)
                    .ToList();
                if (damaged.Count == 0)
                    continue;
                var mended = repair && !spool.Alive(run.Key);
                problems.AddRange(damaged.Select(one => new StoreProblem(one.segment.File, one.Fault!, mended)));
                if (mended)
                    Rewrite(run.Key, [.. run], fromDatabase: broken is null);
            }
            foreach (var left in Directory.EnumerateFiles(folder, "*.staged", SearchOption.AllDirectories).ToList())
            {
                problems.Add(new(left, "left by a kill", repair));
                if (repair)
                    File.Delete(left);
            }
            if (broken is not null && repair)
                SetAside();
            return problems;
        });
    }

    /// <summary>Removes a run, its points and its spool. Throws while it is being written.</summary>
    public void Remove(string id) =>
        Query(
            db =>
            {
                if (spool.Alive(id))
                    throw new TrackingException($"Run {id} is being written; it cannot be removed.");
                // The spool first: what a kill leaves is a run that can be removed again, not one that comes back.
                spool.Remove(id);
                if (db.FindById(id, details: false) is { } run)
                    db.Remove(run);
                if (Spool.IsId(id) && Directory.Exists(Logs))
                    File.Delete(LogOf(id));
                return true;
            },
            one => one == id
        );

    /// <summary>Writes runs, and with <paramref name="artifacts"/> what they link to, into one zip file: a backup, or
    /// a parcel for another store. Runs being written go in as far as they are; importing a later archive brings the
    /// rest. Their experiments go along; a backup of all runs has those without runs too. Returns how many runs went
    /// in.
    /// </summary>
    public int Export(string file, IReadOnlyCollection<string>? ids = null, IArtifactStore? artifacts = null)
    {
        var heads = Query(db =>
            db.Heads()
                .Where(run => ids is null || ids.Contains(run.Id))
                .Select(run => (run.Id, run.Experiment))
                .ToList()
        );
        var runs = heads.Select(run => run.Id).ToList();
        var sets = ids is null
            ? Experiments.All()
            :
            [
                .. heads
                    .Select(run => run.Experiment)
                    .Distinct()
                    .Select(Experiments.Of)
                    .DistinctBy(experiment => experiment.Id),
            ];
        var links = artifacts is null
            ? []
            : runs.SelectMany(id => Get(id)?.Artifacts ?? []).Select(link => link.Hash).Distinct().ToList();
        return Guard(() =>
        {
            Spool.Place(
                file,
                stream =>
                {
                    using var zip = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true);
                    using (var about = zip.CreateEntry(About).Open())
                        JsonSerializer.Serialize(about, new Archive(Format, clock.GetUtcNow(), runs.Count));
                    using (var entry = zip.CreateEntry(Sets).Open())
                        JsonSerializer.Serialize(entry, sets);
                    foreach (var id in runs)
                    {
                        // nothing is sealed or removed meanwhile; others come between runs
                        using var held = Hold(Environment.TickCount64 + Patience);
                        for (var number = 0; spool.Find(id, number) is { } segment; number++)
                        {
                            using var entry = zip.CreateEntry($"{Lines}{id}.{number}.jsonl", CompressionLevel.Fastest)
                                .Open();
                            using var lines = segment.Read();
                            lines.CopyTo(entry);
                        }
                        if (ReadLog(id) is { } log)
                        {
                            using var entry = zip.CreateEntry($"{Texts}{id}.txt", CompressionLevel.Fastest).Open();
                            using (log)
                                log.CopyTo(entry);
                        }
                    }
                    foreach (var hash in links.Where(hash => artifacts!.List().Contains(hash)))
                    {
                        var temporary = Directory.CreateTempSubdirectory("memopt").FullName;
                        try
                        {
                            artifacts!.Get(hash, temporary);
                            foreach (var path in Directory.EnumerateFiles(temporary, "*", SearchOption.AllDirectories))
                                zip.CreateEntryFromFile(
                                    path,
                                    Content
                                        + hash
                                        + "/"
                                        + Path.GetRelativePath(temporary, path)
                                            .Replace(Path.DirectorySeparatorChar, '/'),
                                    CompressionLevel.Fastest
                                );
                        }
                        finally
                        {
                            Directory.Delete(temporary, recursive: true);
                        }
                    }
                }
            );
            return runs.Count;
        });
    }

    /// <summary>Brings in the runs of an archive, or of another store's folder. What is here already is passed over,
    /// so importing twice changes nothing; a run that was here in part gets the rest. Experiments keep their ids where
    /// these are free.
    /// </summary>
    public Imported Import(string path, IArtifactStore? artifacts = null)
    {
        try
        {
            return Guard(() => Take(path, artifacts));
        }
        catch (Exception e)
            when (e is JsonException or InvalidDataException or NotSupportedException or ArgumentException)
        {
            throw new TrackingException($"{path} is no archive of runs, or a damaged one: {e.Message}", e)
            {
                Failed = false,
            };
        }
    }

    private Imported Take(string path, IArtifactStore? artifacts)
    {
        Query(_ => true); // a store of a newer version is refused before anything is added
        if (Directory.Exists(path))
        {
            if (!Directory.Exists(Path.Combine(path, "spool")))
                throw new TrackingException($"{path} is no folder of a run store.")
                {
                    Failed = false,
                    Next = "name the store's own folder, such as .memopt/store",
                };
            var (source, other) = (new Spool(path), new LiteRunStore(path));
            var taken = Take(
                source
                    .Segments(all: true)
                    .Select(segment => (segment.Run, segment.Number, (Func<Stream>)(() => segment.Read()))),
                out var there
            );
            TakeLogs(taken.Select(id => (id, (Func<Stream?>)(() => other.ReadLog(id)))));
            Experiments.Take(other.Experiments.Read());
            return new Imported(taken, there, 0);
        }
        using var zip = ZipFile.OpenRead(path);
        using (
            var about =
                zip.GetEntry(About)?.Open()
                ?? throw new TrackingException($"{path} is no archive of runs.") { Failed = false }
        )
        {
            if (JsonSerializer.Deserialize<Archive>(about) is not { Format: <= Format })
                throw new TrackingException($"{path} was made by a newer memopt. Update the tool.") { Failed = false };
        }
        var segments = zip
            .Entries.Where(entry => entry.FullName.StartsWith(Lines, StringComparison.Ordinal))
            .Select(entry => (Parts: entry.Name.Split('.'), entry))
            .Where(one => one.Parts.Length == 3 && Spool.IsId(one.Parts[0]) && int.TryParse(one.Parts[1], out _))
            .Select(one => (one.Parts[0], int.Parse(one.Parts[1]), (Func<Stream>)one.entry.Open));
        var news = Take(segments, out var known);
        TakeLogs(news.Select(id => (id, (Func<Stream?>)(() => zip.GetEntry($"{Texts}{id}.txt")?.Open()))));
        using (var entry = zip.GetEntry(Sets)?.Open())
            Experiments.Take(entry is null ? [] : JsonSerializer.Deserialize<List<Experiment>>(entry)!);
        var stored = 0;
        foreach (
            var artifact in zip
                .Entries.Where(entry =>
                    artifacts is not null && entry.FullName.StartsWith(Content, StringComparison.Ordinal)
                )
                .GroupBy(entry => entry.FullName.Split('/')[1])
        )
        {
            var temporary = Directory.CreateTempSubdirectory("memopt").FullName;
            try
            {
                foreach (var entry in artifact)
                {
                    var target = Path.GetFullPath(
                        Path.Combine(temporary, entry.FullName[(Content.Length + artifact.Key.Length + 1)..])
                    );
                    if (!target.StartsWith(temporary + Path.DirectorySeparatorChar, StringComparison.Ordinal))
                        throw new TrackingException($"{path} names a file outside its folder: {entry.FullName}")
                        {
                            Failed = false,
                        };
                    Directory.CreateDirectory(Path.GetDirectoryName(target)!);
                    entry.ExtractToFile(target);
                }
                if (artifacts!.Put(artifact.Key, temporary).Hash != artifact.Key)
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
        return new Imported(news, known, stored);
    }

    /// <summary>Lays segments beside what is here.</summary>
    private List<string> Take(IEnumerable<(string Run, int Number, Func<Stream> Open)> segments, out int known)
    {
        var (news, seen) = (new List<string>(), 0);
        foreach (var run in segments.GroupBy(segment => segment.Run))
        {
            using var held =
                Hold(Environment.TickCount64 + Patience)
                ?? throw new TrackingException($"The run store at {folder} cannot be written.");
            spool.Create();
            var fresh = false;
            foreach (var (_, _, open) in run.OrderBy(segment => segment.Number))
            {
                var (have, longer) = (false, (Spool.Segment?)null);
                for (var number = 0; !have && spool.Find(run.Key, number) is { } mine; number++)
                {
                    using var a = mine.Read();
                    using var b = open();
                    var (same, restOfMine, restOfTheirs) = Compare(a, b);
                    have = same && !restOfTheirs;
                    longer =
                        same && restOfTheirs && !restOfMine && spool.Find(run.Key, number + 1) is null ? mine : null;
                }
                if (have)
                    continue;
                if (spool.Alive(run.Key))
                    throw new TrackingException($"Run {run.Key} is being written here; import it when it has ended.");
                // One that is here in part is completed in its place; the database goes on from where it was.
                var target = longer is null ? spool.Next(run.Key) : spool.PathOf(run.Key, longer.Number);
                using (var source = open())
                    Spool.Place(target, source.CopyTo);
                if (longer is { Sealed: true })
                    File.Delete(longer.File);
                fresh = true;
            }
            if (fresh)
                news.Add(run.Key);
            else
                seen++;
        }
        known = seen;
        return news;
    }

    /// <summary>Takes the texts of runs that had news.</summary>
    private void TakeLogs(IEnumerable<(string Run, Func<Stream?> Open)> logs)
    {
        foreach (var (run, open) in logs)
        {
            using var text = open();
            if (text is null)
                continue;
            Directory.CreateDirectory(Logs);
            Spool.Place(LogOf(run), text.CopyTo);
        }
    }

    /// <summary>Whether one stream begins with the other, and which has more.</summary>
    private static (bool Same, bool MoreA, bool MoreB) Compare(Stream a, Stream b)
    {
        var (x, y) = (new byte[1 << 16], new byte[1 << 16]);
        while (true)
        {
            var (m, n) = (
                a.ReadAtLeast(x, x.Length, throwOnEndOfStream: false),
                b.ReadAtLeast(y, y.Length, throwOnEndOfStream: false)
            );
            var common = Math.Min(m, n);
            if (!x.AsSpan(0, common).SequenceEqual(y.AsSpan(0, common)))
                return (false, false, false);
            if (m != n || m < x.Length)
                return (true, m > n, n > m);
        }
    }

    /// <summary>What is wrong with the database, or null.</summary>
    private string? Broken()
    {
        try
        {
            using var db = Open();
            db.Ingest(spool.FindPending(all: !db.Complete), long.MaxValue);
            return db.FindInconsistency();
        }
        catch (Exception e) when (e is not (TrackingException or UnauthorizedAccessException or OutOfMemoryException))
        {
            return $"cannot be read: {e.Message}";
        }
    }

    /// <summary>What is wrong with a segment, or null.</summary>
    private static string? Fault(Spool.Segment segment)
    {
        try
        {
            if (!segment.Ends())
                return "ends too early";
            using var lines = new StreamReader(segment.Read());
            var (damaged, doubtful) = (0, 0);
            while (lines.ReadLine() is { } line)
            {
                if (line.Length == 0)
                    continue;
                if (!SpoolLine.TryRead(Encoding.UTF8.GetBytes(line), out var kind, out _, out _))
                    doubtful++;
                else
                    // before a new beginning, or last, it is what a kill left
                    (damaged, doubtful) = (damaged + (kind.SequenceEqual("begin"u8) ? 0 : doubtful), 0);
            }
            return damaged > 0 ? $"{damaged} lines are damaged" : null;
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            return $"cannot be read to its end: {e.Message}";
        }
    }

    /// <summary>Writes a run's spool anew: from the database, which had taken it in, or from the lines that can still
    /// be read.</summary>
    private void Rewrite(string run, List<Spool.Segment> segments, bool fromDatabase)
    {
        var lines = new ArrayBufferWriter<byte>();
        using (var db = fromDatabase ? Open() : null)
        {
            if (db?.FindById(run) is { } record)
            {
                db.Write(record, lines);
                db.Remove(record);
            }
            else
            {
                foreach (var segment in segments)
                    Readable(segment, lines);
            }
        }
        foreach (var segment in segments)
            File.Move(segment.File, segment.File + ".damaged", overwrite: true);
        Spool.Place(spool.PathOf(run, 0), stream => stream.Write(lines.WrittenSpan));
    }

    private static void Readable(Spool.Segment segment, ArrayBufferWriter<byte> target)
    {
        try
        {
            using var lines = new StreamReader(segment.Read());
            while (lines.ReadLine() is { } line)
            {
                var bytes = Encoding.UTF8.GetBytes(line + "\n");
                if (SpoolLine.TryRead(bytes.AsSpan(0, bytes.Length - 1), out _, out _, out _))
                    target.Write(bytes);
            }
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            // What came before is kept.
        }
    }
}
