using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>Sends what a training leaves to a storage account while it goes on: one thread, newest first. Handing
/// something over writes a note of a few hundred bytes and waits for nothing; memory is that of four blocks. While the
/// network is away it tries again after growing pauses; what no waiting fixes is tried again when something else has
/// got through. Begin, end and trouble are events of the run, and its link names the account once it is there.
/// </summary>
public sealed class BackgroundUpload : IDisposable
{
    private static readonly TimeSpan longest = TimeSpan.FromMinutes(2);
    private readonly object gate = new(),
        record = new();
    private readonly CancellationTokenSource end = new();
    private readonly LocalArtifacts local;
    private readonly BlobArtifacts remote;
    private readonly IRunStore runs;
    private readonly Action<string> report;
    private readonly TimeSpan first;
    private readonly TimeProvider clock;
    private readonly Thread thread;

    // The last is sent next. Never more than there are folders: those that are gone are dropped.
    private readonly List<Upload> queue;
    private readonly List<PendingUpload> refused = [];
    private Upload? current;
    private TrackingException? trouble;
    private DateTimeOffset troubled;
    private (string Run, IRunWriter Writer, Func<int> Step)? recording;
    private long moved;
    private bool hurry;

    /// <summary>Begins with the uploads that previous processes left.</summary>
    /// <param name="local">The artifacts of this machine; notes of what is to be sent lie beside them.</param>
    /// <param name="location">Where everything goes.</param>
    /// <param name="runs">Where links and events of runs are recorded.</param>
    /// <param name="report">Receives trouble and its end, in words for people.</param>
    /// <param name="first">The first pause after a failure, doubled up to two minutes; a second when null.</param>
    /// <param name="clock">Time of events; the system's when null.</param>
    public BackgroundUpload(
        LocalArtifacts local,
        BlobLocation location,
        IRunStore runs,
        Action<string> report,
        TimeSpan? first = null,
        TimeProvider? clock = null
    )
    {
        this.clock = clock ?? TimeProvider.System;
        (this.local, this.runs, this.report, this.first) = (local, runs, report, first ?? TimeSpan.FromSeconds(1));
        remote = new(local, location, attempts: 3)
        {
            Stop = end.Token,
            Moved = bytes => Interlocked.Add(ref moved, bytes),
        };
        queue = [.. Left(location)];
        thread = new(Work) { IsBackground = true, Name = "upload" };
        thread.Start();
    }

    /// <summary>How many are still to be sent.</summary>
    public int Waiting
    {
        get
        {
            lock (gate)
                return queue.Count;
        }
    }

    /// <summary>Hands something over.</summary>
    public void Send(Upload upload)
    {
        try
        {
            local.Note(upload, remote.Place);
        }
        catch (TrackingException e)
        {
            report($"{e.Message} What is not sent before this process ends is not sent later either.");
        }
        lock (gate)
        {
            foreach (
                var gone in queue.Concat(refused.Select(one => one.Upload)).Where(other => !other.There(local)).ToList()
            )
            {
                local.Forget(gone);
                queue.Remove(gone);
                refused.RemoveAll(one => one.Upload == gone);
            }
            queue.Add(upload);
            Monitor.PulseAll(gate);
        }
    }

    /// <summary>Until disposed, what happens to a run's uploads is recorded by its writer.</summary>
    /// <param name="run">The run.</param>
    /// <param name="writer">Its writer, which must outlive this.</param>
    /// <param name="step">Steps made so far.</param>
    public IDisposable Recording(string run, IRunWriter writer, Func<int> step)
    {
        lock (record)
            recording = (run, writer, step);
        return new Scope(() =>
        {
            lock (record)
                recording = null;
        });
    }

    /// <summary>Waits until everything is there, or until waiting does not help: after <paramref name="patience"/>, on
    /// <paramref name="stop"/>, or when only such things are left as no waiting fixes. Returns what is not safe; notes
    /// of it stay.
    /// </summary>
    /// <param name="patience">How long at most.</param>
    /// <param name="progress">Receives the bytes that are there, of those that were to be sent: when they change, else
    /// each minute.</param>
    /// <param name="stop">Ends the waiting.</param>
    public IReadOnlyList<PendingUpload> Finish(TimeSpan patience, Action<long, long> progress, CancellationToken stop)
    {
        var until = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        using var stopping = stop.Register(() =>
        {
            lock (gate)
                Monitor.PulseAll(gate);
        });
        lock (gate)
        {
            hurry = true;
            Monitor.PulseAll(gate);
            var (total, last, reported) = (Left(), long.MaxValue, 0L);
            while (
                (current is not null || queue.Count > 0)
                && !stop.IsCancellationRequested
                && Environment.TickCount64 < until
            )
            {
                if (Left() != last || Environment.TickCount64 - reported >= 60_000)
                {
                    (last, reported, total) = (Left(), Environment.TickCount64, Math.Max(total, Left()));
                    progress(total - last, total);
                }
                Monitor.Wait(gate, TimeSpan.FromSeconds(1));
            }
            return
            [
                .. queue
                    .Where(left => left.There(local))
                    .Select(left => new PendingUpload(left, trouble?.Message, trouble?.Next)),
                .. refused.Where(left => left.Upload.There(local)),
            ];
        }
    }

    public void Dispose()
    {
        end.Cancel();
        lock (gate)
            Monitor.PulseAll(gate);
        // A request that hangs is given up at once; should the system not let go of it, the process does.
        if (thread.Join(TimeSpan.FromSeconds(10)))
            end.Dispose();
    }

    private long Left() =>
        queue.Sum(upload => upload.Link.Bytes)
        - (current is null ? 0 : Math.Min(Interlocked.Read(ref moved), current.Link.Bytes));

    private void Work()
    {
        var pause = first;
        while (Next() is { } next)
        {
            try
            {
                if (next.There(local))
                {
                    remote.Push(next);
                    Sent(next);
                    pause = first;
                }
                else
                {
                    Drop(next);
                }
            }
            catch (Exception e) when (!end.IsCancellationRequested)
            {
                // Nothing that happens here may end a training.
                var fault = e as TrackingException ?? new($"{remote.Place}: {e.Message}", e);
                if (!next.There(local))
                {
                    Drop(next);
                    continue;
                }
                Failed(next, fault);
                if (!fault.IsTransient)
                    continue;
                Pause(pause * (0.5 + Random.Shared.NextDouble()));
                pause = pause * 2 < longest ? pause * 2 : longest;
            }
            catch (Exception)
            {
                return;
            }
        }
    }

    /// <summary>What is to be sent now; waits for it. Null at the end.</summary>
    private Upload? Next()
    {
        lock (gate)
        {
            current = null;
            Monitor.PulseAll(gate);
            while (queue.Count == 0 && !end.IsCancellationRequested)
                Monitor.Wait(gate);
            Interlocked.Exchange(ref moved, 0);
            return current = end.IsCancellationRequested ? null : queue[^1];
        }
    }

    private void Pause(TimeSpan pause)
    {
        lock (gate)
        {
            var until = Environment.TickCount64 + (long)pause.TotalMilliseconds;
            while (!hurry && !end.IsCancellationRequested && until - Environment.TickCount64 is > 0 and var left)
                Monitor.Wait(gate, (int)left);
            hurry = false;
        }
    }

    private void Sent(Upload upload)
    {
        if (trouble is not null)
            Tell(
                upload,
                $"uploads to {remote.Place} go through again, after {clock.GetUtcNow() - troubled:hh\\:mm\\:ss}"
            );
        trouble = null;
        // Without its link in the record the note stays, and so the next sync makes it good.
        var recorded = Record(
            upload.Run,
            (writer, step) =>
            {
                writer.Append(
                    new RunEvent(
                        clock.GetUtcNow(),
                        step,
                        StageNames.Upload,
                        $"{upload.Link.Name} is in {remote.Place}, {upload.Link.Bytes / 1048576.0:N1} MiB"
                    )
                );
                writer.Link(upload.Safe(remote.Place));
            }
        );
        if (recorded)
            local.Forget(upload);
        lock (gate)
        {
            queue.Remove(upload);
            queue.InsertRange(0, refused.Select(one => one.Upload));
            refused.Clear();
        }
    }

    private void Failed(Upload upload, TrackingException fault)
    {
        if (trouble is null)
            troubled = clock.GetUtcNow();
        if (trouble is null || trouble.IsTransient != fault.IsTransient)
            Tell(
                upload,
                fault.IsTransient
                    ? $"{fault.Message} It is tried again until it is there."
                    : $"{upload.Link.Name} is not uploaded: {fault.Message} {fault.Next}"
            );
        trouble = fault;
        if (fault.IsTransient)
            return;
        lock (gate)
        {
            queue.Remove(upload);
            refused.Add(new(upload, fault.Message, fault.Next));
        }
    }

    private void Drop(Upload upload)
    {
        local.Forget(upload);
        lock (gate)
            queue.Remove(upload);
    }

    private void Tell(Upload upload, string text)
    {
        report(text);
        Record(
            upload.Run,
            (writer, step) => writer.Append(new RunEvent(clock.GetUtcNow(), step, StageNames.Upload, text))
        );
    }

    /// <summary>The uploads that previous processes left, except those of runs that are training: they send their
    /// own.</summary>
    private IReadOnlyList<Upload> Left(BlobLocation location)
    {
        try
        {
            return [.. local.Notes(location).Where(left => runs.Get(left.Run)?.Status != RunStatus.Running)];
        }
        catch (TrackingException e)
        {
            report($"{e.Message} Unsent artifacts of previous runs wait.");
            return [];
        }
    }

    /// <summary>Records something of a run; false when that failed. A run that is not known here has no
    /// record.</summary>
    private bool Record(string run, Action<IRunWriter, int> write)
    {
        try
        {
            lock (record)
            {
                if (recording is { } now && now.Run == run)
                {
                    write(now.Writer, now.Step());
                    return true;
                }
            }
            if (runs.Get(run) is not { } ended)
                return true;
            using var writer = runs.Amend(run);
            write(writer, (int)ended.Step);
            return true;
        }
        catch (TrackingException)
        {
            return false;
        }
    }

    private sealed class Scope(Action end) : IDisposable
    {
        public void Dispose() => end();
    }
}
