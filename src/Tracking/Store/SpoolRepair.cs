using System.Buffers;
using System.Text;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>Finds damaged segments of spools and writes them anew.</summary>
internal static class SpoolRepair
{
    /// <summary>What is wrong with a segment, or null.</summary>
    public static string? FindFault(Spool.Segment segment)
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

    /// <summary>Writes a run's spool anew, as one segment: from the database, which had ingested it, or from the lines
    /// that can still be read. Removes the run from the database, which then ingests it again.</summary>
    /// <param name="spool">Where.</param>
    /// <param name="segments">All segments of the run.</param>
    /// <param name="database">Null when it is damaged.</param>
    public static void Rewrite(Spool spool, List<Spool.Segment> segments, SharedDatabase? database)
    {
        var (run, lines) = (segments[0].Run, new ArrayBufferWriter<byte>());
        if (database is null || !TakeFromDatabase(database, run, lines))
        {
            foreach (var segment in segments)
                WriteReadable(segment, lines);
        }
        foreach (var segment in segments)
            File.Move(segment.File, segment.File + ".damaged", overwrite: true);
        Spool.Place(spool.PathOf(run, 0), stream => stream.Write(lines.WrittenSpan));
    }

    /// <summary>Writes the lines of a run that the database has, and removes the run from it; false when it does not
    /// have the run. The database is open no longer than this takes.</summary>
    private static bool TakeFromDatabase(SharedDatabase database, string run, ArrayBufferWriter<byte> lines)
    {
        using var db = database.Open();
        if (db.Runs.Find(run) is not { } record)
            return false;
        WriteRecord(db, record, lines);
        db.Remove(record);
        return true;
    }

    /// <summary>All that a database knows of a run.</summary>
    private static void WriteRecord(RunDatabase db, RunRecord run, ArrayBufferWriter<byte> lines)
    {
        using var json = new Utf8JsonWriter(Stream.Null);
        Line("begin", run.StartJson);
        foreach (var (key, value) in run.Later)
            Line(
                key[0] == 't' ? "tag" : "param",
                JsonSerializer.Serialize(new SpoolWriter.Named(key[1..], value), LiteRunStore.Json)
            );
        foreach (var name in run.Metrics.Keys)
        {
            foreach (var point in db.Points.Read(run, name))
                SpoolLine.Write(lines, "log", 0, [(name, point.Value)], point.Time, point.Step, json);
        }
        run.Events.ForEach(item => Line("event", item));
        run.Artifacts.ForEach(item => Line("artifact", item));
        Line("end", run.EndJson);

        void Line(string kind, string? body)
        {
            if (body is not null)
                SpoolLine.Write(lines, kind, 0, Encoding.UTF8.GetBytes(body));
        }
    }

    private static void WriteReadable(Spool.Segment segment, ArrayBufferWriter<byte> target)
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
