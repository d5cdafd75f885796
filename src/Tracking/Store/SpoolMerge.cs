namespace Memopt.Tracking;

/// <summary>Lays segments of other stores beside what a store has.</summary>
internal sealed class SpoolMerge(StoreFolder folder)
{
    private readonly Spool spool = folder.Spool;

    /// <summary>A segment of another store.</summary>
    public sealed record Source(string Run, int Number, Func<Stream> Open);

    /// <summary>Which of two streams go on where the other ends.</summary>
    private readonly record struct Comparison(bool Same, bool MoreHere, bool MoreThere);

    /// <summary>Adds what is not here yet. Returns the runs that had news, and how many had none.</summary>
    public (List<string> News, int Known) Merge(IEnumerable<Source> segments)
    {
        var (news, known) = (new List<string>(), 0);
        foreach (var run in segments.GroupBy(segment => segment.Run))
        {
            using var held =
                folder.Hold() ?? throw new TrackingException($"The run store at {folder.Path} cannot be written.");
            spool.Create();
            var fresh = false;
            foreach (var segment in run.OrderBy(segment => segment.Number))
                fresh |= Add(segment);
            if (fresh)
                news.Add(run.Key);
            else
                known++;
        }
        return (news, known);
    }

    /// <summary>False when all of the segment is here.</summary>
    private bool Add(Source segment)
    {
        if (IsHere(segment, out var begun))
            return false;
        if (spool.Alive(segment.Run))
            throw new TrackingException($"Run {segment.Run} is being written here; import it when it has ended.");
        // One that is here in part is completed in its place; the database goes on from where it was.
        var target = begun is null ? spool.Next(segment.Run) : spool.PathOf(segment.Run, begun.Number);
        using (var source = segment.Open())
            Spool.Place(target, source.CopyTo);
        if (begun is { Sealed: true })
            File.Delete(begun.File);
        return true;
    }

    /// <summary>Whether some segment of the run has all lines of this one.</summary>
    /// <param name="segment">Of another store.</param>
    /// <param name="begun">The run's last segment here, where it is the beginning of this one.</param>
    private bool IsHere(Source segment, out Spool.Segment? begun)
    {
        begun = null;
        for (var number = 0; spool.Find(segment.Run, number) is { } mine; number++)
        {
            using var here = mine.Read();
            using var there = segment.Open();
            var (same, moreHere, moreThere) = Compare(here, there);
            if (same && !moreThere)
                return true;
            var last = spool.Find(segment.Run, number + 1) is null;
            begun = same && !moreHere && last ? mine : null;
        }
        return false;
    }

    private static Comparison Compare(Stream here, Stream there)
    {
        var (x, y) = (new byte[1 << 16], new byte[1 << 16]);
        while (true)
        {
            var (m, n) = (
                here.ReadAtLeast(x, x.Length, throwOnEndOfStream: false),
                there.ReadAtLeast(y, y.Length, throwOnEndOfStream: false)
            );
            var common = Math.Min(m, n);
            if (!x.AsSpan(0, common).SequenceEqual(y.AsSpan(0, common)))
                return new(Same: false, MoreHere: false, MoreThere: false);
            if (m != n || m < x.Length)
                return new(Same: true, m > n, n > m);
        }
    }
}
