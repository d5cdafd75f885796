using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.IO.Compression;
using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>The spools of a store: all that was ever recorded, from which everything else can be built again. A writer
/// makes a new segment each time it begins a run. One that is complete and in the database is sealed: compressed, and
/// moved to where no query looks for news.
/// </summary>
internal sealed partial class Spool(string folder, TimeProvider clock)
{
    private const int Sealers = 8;

    private static readonly TimeSpan silence = TimeSpan.FromSeconds(60);

    private readonly string open = Path.Combine(folder, "spool"),
        closed = Path.Combine(folder, "sealed");

    /// <summary>One stretch of a run's record.</summary>
    /// <param name="Run">The run's id.</param>
    /// <param name="Number">Which, from 0.</param>
    /// <param name="File">Where it lies.</param>
    public sealed record Segment(string Run, int Number, string File)
    {
        public bool Sealed => File.EndsWith(".gz", StringComparison.Ordinal);

        public bool Empty => new FileInfo(File).Length == 0;

        /// <summary>Its lines, from an offset into them.</summary>
        public Stream Read(long offset = 0)
        {
            var stream = new FileStream(File, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            if (!Sealed)
            {
                stream.Position = offset;
                return stream;
            }
            var lines = new GZipStream(stream, CompressionMode.Decompress);
            var skip = new byte[1 << 16];
            for (
                int read;
                offset > 0 && (read = lines.Read(skip, 0, (int)Math.Min(skip.Length, offset))) > 0;
                offset -= read
            ) { }
            return lines;
        }

        /// <summary>Whether a sealed segment has the length that its last bytes tell; .NET reads one that was cut off
        /// without a word.</summary>
        public bool Ends()
        {
            if (!Sealed)
                return true;
            var length = 0L;
            using (var lines = Read())
            {
                var buffer = new byte[1 << 16];
                int read;
                while ((read = lines.Read(buffer)) > 0)
                    length += read;
            }
            return Holds(length);
        }

        /// <summary>Whether the last bytes of a sealed segment tell that so many bytes are in it, counted as they
        /// count: modulo 4 GiB.</summary>
        public bool Holds(long length)
        {
            using var stream = new FileStream(
                File,
                FileMode.Open,
                FileAccess.Read,
                FileShare.ReadWrite | FileShare.Delete
            );
            var stated = new byte[4];
            if (stream.Length < stated.Length)
                return false;
            stream.Position = stream.Length - stated.Length;
            stream.ReadExactly(stated);
            return BinaryPrimitives.ReadUInt32LittleEndian(stated) == (uint)length;
        }
    }

    /// <summary>A segment and how long it was when it was looked at.</summary>
    public sealed record PendingSegment(Segment Segment, long Length);

    /// <summary>What there may be to take in, the runs that were written last first: if time is short, theirs is the
    /// news that people look for.</summary>
    /// <param name="all">Whether sealed segments count, too.</param>
    /// <param name="about">Which runs are asked for: they come before all others. Null for all.</param>
    public IReadOnlyList<PendingSegment> FindPending(bool all, Predicate<string>? about = null) =>
        [
            .. Segments(all)
                .Select(segment => (Segment: segment, File: new FileInfo(segment.File)))
                .GroupBy(one => one.Segment.Run)
                .OrderByDescending(run => about?.Invoke(run.Key))
                .ThenByDescending(run => run.Max(one => one.File.LastWriteTimeUtc))
                .SelectMany(run => run)
                .Select(one => new PendingSegment(one.Segment, one.File.Length)),
        ];

    public void Create()
    {
        Directory.CreateDirectory(open);
        Directory.CreateDirectory(closed);
    }

    /// <summary>Segments that may have news, or all that there are, each run's in order.</summary>
    public IEnumerable<Segment> Segments(bool all)
    {
        var found = Files(open, "*.jsonl");
        if (all)
        {
            // A kill while sealing leaves a segment twice; the open one is then the one that is surely whole.
            found = found
                .Concat(Files(closed, "*.jsonl.gz"))
                .GroupBy(segment => (segment.Run, segment.Number))
                .Select(group => group.First());
        }
        return found.OrderBy(segment => segment.Run, StringComparer.Ordinal).ThenBy(segment => segment.Number).ToList();

        static IEnumerable<Segment> Files(string folder, string pattern) =>
            !Directory.Exists(folder)
                ? []
                : Directory
                    .EnumerateFiles(folder, pattern)
                    .Select(file =>
                        Named().Match(Path.GetFileName(file)) is { Success: true } name
                            ? new Segment(
                                name.Groups["run"].Value,
                                name.Groups["n"].Success ? int.Parse(name.Groups["n"].Value) : 0,
                                file
                            )
                            : null
                    )
                    .OfType<Segment>();
    }

    /// <summary>A run's segment, or null when there is none of that number.</summary>
    public Segment? Find(string run, int number)
    {
        var name = FileName(run, number);
        return File.Exists(Path.Combine(open, name)) ? new(run, number, Path.Combine(open, name))
            : File.Exists(Path.Combine(closed, name + ".gz")) ? new(run, number, Path.Combine(closed, name + ".gz"))
            : null;
    }

    /// <summary>Whether a run's record has its first line, and that can be read.</summary>
    public bool Begun(string run)
    {
        try
        {
            using var lines = Find(run, 0) is { } segment ? new StreamReader(segment.Read()) : null;
            return lines?.ReadLine() is { } line
                && SpoolLine.TryRead(System.Text.Encoding.UTF8.GetBytes(line), out var kind, out _, out _)
                && kind.SequenceEqual("begin"u8);
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            return false;
        }
    }

    /// <summary>Where a run's next segment goes.</summary>
    public string Next(string run)
    {
        var number = 0;
        while (Find(run, number) is not null)
            number++;
        return Path.Combine(open, FileName(run, number));
    }

    public string PathOf(string run, int number) => Path.Combine(open, FileName(run, number));

    /// <summary>Seals segments, several at once: each waits for the disk, which brings many files down in the time of
    /// one. What there is no room for stays where it is, and the next query tries again.
    /// </summary>
    public void Seal(IReadOnlyCollection<Segment> segments)
    {
        var waiting = new ConcurrentQueue<Segment>(segments);
        Task.WaitAll(
            Enumerable
                .Range(0, Math.Min(Sealers, segments.Count))
                .Select(_ =>
                    Task.Factory.StartNew(
                        Work,
                        CancellationToken.None,
                        TaskCreationOptions.LongRunning,
                        TaskScheduler.Default
                    )
                )
        );

        void Work()
        {
            while (waiting.TryDequeue(out var segment))
            {
                try
                {
                    Seal(segment);
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    waiting.Clear();
                }
            }
        }
    }

    private void Seal(Segment segment)
    {
        var target = Path.Combine(closed, FileName(segment.Run, segment.Number) + ".gz");
        Place(
            target,
            stream =>
            {
                using var source = segment.Read();
                using var lines = new GZipStream(stream, CompressionLevel.Fastest, leaveOpen: true);
                if (segment.Empty)
                    // of nothing .NET makes no gzip file, but an empty one: as if it had been cut off
                    lines.Write("\n"u8);
                source.CopyTo(lines);
            }
        );
        File.Delete(segment.File);
    }

    /// <summary>Removes all that a run left here.</summary>
    public void Remove(string run)
    {
        for (var number = 0; Find(run, number) is { } segment; number++)
            File.Delete(segment.File);
        File.Delete(LockFile(run));
    }

    /// <summary>Writes a file beside its place, flushes it to the disk and moves it there whole. What a kill leaves,
    /// <see cref="StoreCheck"/> finds by its name.</summary>
    public static void Place(string target, Action<Stream> write)
    {
        using var staged = new StagedPath(target + ".staged");
        staged.Write(write);
        staged.MoveTo(target);
    }

    /// <summary>Whether some process is writing the run. The lock on its side file is the sign of life: the operating
    /// system lets go of it when the process ends, however it ends. Locks do not reach other machines on every shared
    /// file system, so one that another machine took counts while it is touched.
    /// </summary>
    public bool Alive(string run)
    {
        try
        {
            // Read and shared: two that look at once must not take each other for the writer.
            using var probe = new FileStream(LockFile(run), FileMode.Open, FileAccess.Read, FileShare.Read);
            using var text = new StreamReader(probe);
            var host = text.ReadLine();
            return !string.IsNullOrEmpty(host)
                && host != Environment.MachineName
                && LastSeen(run) is { } seen
                && clock.GetUtcNow() - seen < silence;
        }
        catch (FileNotFoundException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    /// <summary>The last heartbeat of the run's writer.</summary>
    public DateTime? LastSeen(string run) =>
        File.Exists(LockFile(run)) ? File.GetLastWriteTimeUtc(LockFile(run)) : null;

    /// <summary>Takes the lock that says a run is alive; throws <see cref="IOException"/> when another process has
    /// it.</summary>
    public FileStream Live(string run)
    {
        // A process that only looks, or adds a link, holds it for a moment.
        var life = FileLock.Take(LockFile(run), TimeSpan.FromSeconds(1));
        try
        {
            life.SetLength(0);
            RandomAccess.Write(life.SafeFileHandle, System.Text.Encoding.UTF8.GetBytes(Environment.MachineName), 0);
            return life;
        }
        catch
        {
            life.Dispose(); // a run that could not begin must not look alive
            throw;
        }
    }

    public static bool IsId(string text) => Id().IsMatch(text);

    private string LockFile(string run) => Path.Combine(open, run + ".lock");

    private static string FileName(string run, int number) => number == 0 ? $"{run}.jsonl" : $"{run}.{number}.jsonl";

    [GeneratedRegex(@"^(?<run>[A-Za-z0-9][\w\-]*)(\.(?<n>\d{1,9}))?\.jsonl(\.gz)?$")]
    private static partial Regex Named();

    [GeneratedRegex(@"^[A-Za-z0-9][A-Za-z0-9_\-]{0,127}$")]
    private static partial Regex Id();
}
