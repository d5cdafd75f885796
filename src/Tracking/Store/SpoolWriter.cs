using System.Buffers;
using System.Text.Json;
using Memopt.Core;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Tracking;

/// <summary>Writes one segment of a run's spool and shows that the run is alive. The file is at every moment the
/// beginning of what was to be written: a line that did not get through waits in memory before the next. Secrets are
/// taken out of everything that is written.
/// </summary>
internal sealed class SpoolWriter : IRunWriter
{
    private const int Waiting = 64 << 20;
    private static readonly TimeSpan pulse = TimeSpan.FromSeconds(1);

    private readonly Lock gate = new();
    private readonly TimeProvider clock;
    private readonly FileStream life;
    private readonly SafeFileHandle file;
    private readonly string path;
    private readonly Action<SafeFileHandle, ReadOnlyMemory<byte>, long> write;
    private readonly ArrayBufferWriter<byte> lines = new(4096);
    private readonly Utf8JsonWriter json = new(Stream.Null);
    private readonly ITimer heart;
    private long position;
    private int lost;
    private bool unflushed,
        disposed;

    /// <param name="spool">Where.</param>
    /// <param name="start">What the run begins with.</param>
    /// <param name="fromStep">The step it goes on from.</param>
    /// <param name="clock">Time of points and of the heartbeat.</param>
    /// <param name="write">Puts bytes into the file at a place; a test's disk may be full.</param>
    public SpoolWriter(
        Spool spool,
        RunStart start,
        int fromStep,
        TimeProvider clock,
        Action<SafeFileHandle, ReadOnlyMemory<byte>, long>? write = null
    )
        : this(spool, start.Id, clock, write, writer => writer.Write("begin", start.Redacted(), fromStep, flush: true))
    {
        // All is in the other constructor.
    }

    /// <summary>Adds to a run without changing how it stands.</summary>
    public SpoolWriter(
        Spool spool,
        string run,
        TimeProvider clock,
        Action<SafeFileHandle, ReadOnlyMemory<byte>, long>? write = null,
        Action<SpoolWriter>? begin = null
    )
    {
        this.clock = clock;
        this.write = write ?? ((handle, bytes, at) => RandomAccess.Write(handle, bytes.Span, at));
        life = spool.Live(run);
        try
        {
            path = spool.Next(run);
            file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete);
            begin?.Invoke(this);
        }
        catch
        {
            file?.Dispose();
            if (path is not null && file is not null)
                File.Delete(path); // a run that could not begin leaves nothing
            life.Dispose();
            throw;
        }
        heart = clock.CreateTimer(_ => Beat(), null, pulse, pulse);
    }

    public void Append(IReadOnlyList<StepRow> rows)
    {
        lock (gate)
        {
            foreach (var row in rows)
                Values(row.Step, clock.GetUtcNow(), row.Metrics());
            Send(flush: false);
        }
    }

    public void Append(EvalRow row)
    {
        lock (gate)
        {
            Values(
                row.Step,
                clock.GetUtcNow(),
                [.. row.Values.Select(value => (Run.EvalPrefix + value.Key, value.Value))]
            );
            Send(flush: true);
        }
    }

    public void Append(MetricRow row)
    {
        lock (gate)
        {
            Values(row.Step, row.Time ?? clock.GetUtcNow(), [.. row.Values.Select(value => (value.Key, value.Value))]);
            Send(flush: false);
        }
    }

    public void Append(RunEvent happened) =>
        Write("event", happened with { Text = Secrets.Redact(happened.Text) }, flush: true);

    public void Param(string name, string value) => Write("param", new Named(name, Secrets.Redact(name, value)));

    public void Tag(string name, string? value) =>
        Write("tag", new Named(name, value is null ? null : Secrets.Redact(name, value)));

    public void Link(ArtifactLink artifact) =>
        Write(
            "artifact",
            artifact with
            {
                Path = artifact.Path is null ? null : Secrets.Redact(artifact.Path),
            },
            flush: true
        );

    public void End(Outcome outcome) =>
        Write(
            "end",
            outcome with
            {
                Reason = outcome.Reason is null ? null : Secrets.Redact(outcome.Reason),
            },
            flush: true
        );

    public void Dispose()
    {
        lock (gate)
        {
            if (disposed)
                return;
            disposed = true;
            heart.Dispose();
            try
            {
                Send(flush: true);
            }
            catch (TrackingException)
            {
                // A previous call threw the fault, and no later call can write the rest.
            }
            file.Dispose();
            json.Dispose();
            life.Dispose(); // last: from here on the run is not alive
        }
    }

    /// <summary>The body of a parameter or a tag.</summary>
    internal sealed record Named(string Name, string? Value);

    private void Values(long step, DateTimeOffset time, ReadOnlySpan<(string, double)> values)
    {
        if (!Room())
            return;
        SpoolLine.Write(lines, "log", 0, values, time.ToUnixTimeMilliseconds(), step, json);
    }

    private void Write<T>(string kind, T body, int fromStep = 0, bool flush = false)
    {
        lock (gate)
        {
            if (Room())
                SpoolLine.Write(lines, kind, fromStep, JsonSerializer.SerializeToUtf8Bytes(body, LiteRunStore.Json));
            Send(flush);
        }
    }

    private bool Room()
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        if (lines.WrittenCount < Waiting)
            return true;
        lost++;
        return false;
    }

    private void Send(bool flush)
    {
        try
        {
            if (lines.WrittenCount > 0)
            {
                if (lost > 0)
                {
                    var text = $"{lost} records were lost while {path} could not be written";
                    SpoolLine.Write(
                        lines,
                        "event",
                        0,
                        JsonSerializer.SerializeToUtf8Bytes(
                            new RunEvent(clock.GetUtcNow(), 0, StageNames.Tracking, text),
                            LiteRunStore.Json
                        )
                    );
                    lost = 0;
                }
                write(file, lines.WrittenMemory, position); // one write: the kernel has it when this returns
                position += lines.WrittenCount;
                lines.ResetWrittenCount();
                unflushed = true;
            }
            if (flush && unflushed)
            {
                unflushed = false;
                RandomAccess.FlushToDisk(file);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            var state =
                lines.WrittenCount == 0
                    ? "It may not survive a loss of power."
                    : $"{lines.WrittenCount:N0} bytes wait in memory.";
            throw new TrackingException($"The run cannot be recorded in {path}: {e.Message} {state}", e);
        }
    }

    /// <summary>Each second: what waits goes out, what is out goes to the disk, and the lock's file shows that the run
    /// is alive.</summary>
    private void Beat()
    {
        try
        {
            lock (gate)
            {
                if (disposed)
                    return;
                if (lines.WrittenCount > 0)
                    Send(flush: false);
                File.SetLastWriteTimeUtc(life.SafeFileHandle, clock.GetUtcNow().UtcDateTime);
                if (!unflushed)
                    return;
                unflushed = false;
            }
            RandomAccess.FlushToDisk(file); // outside the gate: the training does not wait for the disk
        }
        catch (Exception e)
            when (e is TrackingException or IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            // The next call says so.
        }
    }
}
