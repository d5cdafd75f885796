using System.IO.Hashing;
using System.Text;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>A line of a spool: CRC of the rest, kind, and JSON. Whatever a kill left half-written fails the CRC and is passed over.</summary>
internal sealed record SpoolLine(string Kind, int FromStep, string Body)
{
    public static string Write(string kind, string body, int fromStep = 0)
    {
        var rest = $"{kind} {fromStep} {body}";
        return $"{Crc32.HashToUInt32(Encoding.UTF8.GetBytes(rest)):x8} {rest}\n";
    }

    public static SpoolLine? Read(string line)
    {
        var parts = line.Split(' ', 4);
        if (parts.Length < 4 || line.Length < 10 || !int.TryParse(parts[2], out var from))
            return null;
        var crc = $"{Crc32.HashToUInt32(Encoding.UTF8.GetBytes(line[9..])):x8}";
        return crc == parts[0] ? new(parts[1], from, parts[3]) : null;
    }
}

/// <summary>
/// Writes one run's spool. The lock on its side file is the sign of life: the operating system lets go of it when the process ends,
/// however it ends, so a run is never left running.
/// </summary>
internal sealed class SpoolWriter : IRunWriter
{
    private readonly Lock gate = new();
    private readonly FileStream spool, life;

    public SpoolWriter(string folder, RunStart start, int fromStep)
    {
        life = new FileStream(LockFile(folder, start.Id), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        try
        {
            spool = new FileStream(Path.Combine(folder, start.Id + ".jsonl"), FileMode.Append, FileAccess.Write, FileShare.Read, 1);
            if (spool.Position > 0)
                spool.Write("\n"u8);                                          // ends a line that a kill may have torn
            Write("begin", start, fromStep, flush: true);
        }
        catch
        {
            life.Dispose();
            throw;
        }
    }

    public void Append(IReadOnlyList<StepRow> rows)
    {
        foreach (var row in rows)
            Write("step", row);
    }

    public void Append(EvalRow row) => Write("eval", row, flush: true);

    public void Append(RunEvent happened) => Write("event", happened, flush: true);

    public void Link(ArtifactLink artifact) => Write("artifact", artifact, flush: true);

    public void End(Outcome outcome) => Write("end", outcome, flush: true);

    public void Dispose()
    {
        spool.Dispose();
        life.Dispose();
    }

    /// <summary>Whether some process is writing the run.</summary>
    public static bool Alive(string folder, string id)
    {
        try
        {
            using var probe = new FileStream(LockFile(folder, id), FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return false;
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

    private static string LockFile(string folder, string id) => Path.Combine(folder, id + ".lock");

    private void Write<T>(string kind, T body, int fromStep = 0, bool flush = false)
    {
        var line = Encoding.UTF8.GetBytes(SpoolLine.Write(kind, JsonSerializer.Serialize(body, LiteRunStore.Json), fromStep));
        lock (gate)
        {
            try
            {
                spool.Write(line);                                            // one write: the kernel has it when this returns
                spool.Flush(flushToDisk: flush);
            }
            catch (IOException e)
            {
                throw new TrackingException($"The run cannot be recorded in {spool.Name}: {e.Message}", e);
            }
        }
    }
}
