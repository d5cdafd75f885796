using Memopt.Tracking;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>The runs that clients write to. A client keeps no connection, so this process holds each run's writer,
/// which is what makes a run that has not ended alive; when the process ends the run is interrupted, and goes on with
/// the next call. A writer of a run that has ended is closed soon after its last use, one of a run that goes on after a
/// day without any, or when there are too many: each costs two open files. A training's run is let go at once, since
/// the training may be resumed.
/// </summary>
internal sealed class OpenRuns : IDisposable
{
    /// <summary>Says that a client of this interface made the run: it may go on after an interruption, a training's may
    /// not.</summary>
    private const string Maker = "client",
        Mlflow = "mlflow";

    private const int Most = 256;
    private static readonly TimeSpan ended = TimeSpan.FromSeconds(2),
        silent = TimeSpan.FromDays(1),
        look = TimeSpan.FromSeconds(1);

    private readonly LiteRunStore store;
    private readonly TimeProvider clock;
    private readonly Lock gate = new();
    private readonly Dictionary<string, OpenRun> open = [];
    private readonly ITimer timer;
    private bool disposed;

    public OpenRuns(LiteRunStore store, TimeProvider clock)
    {
        (this.store, this.clock) = (store, clock);
        timer = clock.CreateTimer(_ => Close(), null, look, look);
    }

    /// <summary>A run whose writer this process has. Used under its lock only.</summary>
    internal sealed class OpenRun(string id)
    {
        public string Id { get; } = id;
        public IRunWriter Writer { get; set; } = null!;
        public RunStart Start { get; set; } = null!;
        public RunStatus Status { get; set; }
        public DateTimeOffset? Ended { get; set; }
        public bool Deleted { get; set; }
        public Dictionary<string, string> Params { get; set; } = [];
        public Dictionary<string, string> Tags { get; set; } = [];
        public long Used { get; set; }
        public bool Closed { get; set; }

        public void SetParam(string key, string value)
        {
            Writer.Param(key, value);
            Params[key] = value;
        }

        /// <summary>Sets a tag; null removes it.</summary>
        public void SetTag(string key, string? value)
        {
            Writer.Tag(key, value);
            if (value is null)
                Tags.Remove(key);
            else
                Tags[key] = value;
        }
    }

    /// <summary>Begins a run.</summary>
    public void Create(RunStart start)
    {
        start = start with { Environment = new Dictionary<string, string> { [Maker] = Mlflow } };
        var run = new OpenRun(start.Id)
        {
            Start = start,
            Status = RunStatus.Running,
            Tags = new(start.Tags),
            Used = clock.GetTimestamp(),
        };
        run.Writer = store.Begin(start);
        lock (gate)
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            open.Add(start.Id, run);
        }
    }

    /// <summary>Writes to a run, which is opened where it is not; one that was interrupted goes on.</summary>
    public void Write(string id, Action<OpenRun> action)
    {
        while (true)
        {
            OpenRun? run;
            lock (gate)
            {
                ObjectDisposedException.ThrowIf(disposed, this);
                if (!open.TryGetValue(id, out run))
                    open.Add(id, run = new(id) { Used = clock.GetTimestamp() });
            }
            lock (run)
            {
                if (!run.Closed)
                {
                    if (run.Writer is null)
                        Open(run);
                    run.Used = clock.GetTimestamp();
                    try
                    {
                        action(run);
                    }
                    finally
                    {
                        if (!IsOurs(run.Start))
                            Close(run);
                    }
                    return;
                }
            }
            Forget(run);
        }
    }

    /// <summary>Writes to a run as <see cref="Write"/> does, unless it is deleted.</summary>
    /// <exception cref="MlflowFault">It is deleted.</exception>
    public void Change(string id, Action<OpenRun> action) =>
        Write(
            id,
            run =>
            {
                if (run.Deleted)
                    throw new MlflowFault(
                        MlflowFault.Invalid,
                        $"The run {run.Id} must be in the 'active' state. Current state is deleted."
                    );
                action(run);
            }
        );

    /// <summary>Goes on with a run that has ended.</summary>
    public void Resume(OpenRun run)
    {
        run.Writer.Dispose();
        run.Closed = true;
        run.Writer = store.Begin(run.Start, int.MaxValue);
        (run.Closed, run.Status, run.Ended) = (false, RunStatus.Running, null);
    }

    public void Dispose()
    {
        timer.Dispose();
        List<OpenRun> all;
        lock (gate)
        {
            disposed = true;
            all = [.. open.Values];
        }
        all.ForEach(Close);
    }

    private void Open(OpenRun run)
    {
        try
        {
            var known =
                store.GetExact(run.Id) ?? throw new MlflowFault(MlflowFault.Missing, $"Run with id={run.Id} not found");
            if (known.Status == RunStatus.Running)
                throw new MlflowFault(
                    MlflowFault.Conflict,
                    $"Run {run.Id} is being written by another process; it can be changed when that has ended."
                );
            (run.Start, run.Ended, run.Deleted, run.Params, run.Tags) = (
                known.Start,
                known.Ended,
                known.Tags.ContainsKey(Run.DeletedTag),
                new(known.Params),
                new(known.Tags)
            );
            var goesOn = known.Status == RunStatus.Interrupted && IsOurs(known.Start);
            run.Writer = goesOn ? store.Begin(known.Start, int.MaxValue) : store.Amend(run.Id);
            run.Status = goesOn ? RunStatus.Running : known.Status;
        }
        catch
        {
            run.Closed = true;
            Forget(run);
            throw;
        }
    }

    /// <summary>Closes writers that nobody uses; of more than there may be, those that were used least
    /// lately.</summary>
    private void Close()
    {
        List<OpenRun> all;
        lock (gate)
            all = [.. open.Values.OrderByDescending(run => run.Used)];
        for (var i = 0; i < all.Count; i++)
        {
            if (i >= Most || clock.GetElapsedTime(all[i].Used) > (all[i].Status == RunStatus.Running ? silent : ended))
                Close(all[i]);
        }
    }

    private void Close(OpenRun run)
    {
        lock (run)
        {
            run.Closed = true;
            run.Writer?.Dispose();
        }
        Forget(run);
    }

    private static bool IsOurs(RunStart start) => start.Environment.GetValueOrDefault(Maker) == Mlflow;

    private void Forget(OpenRun run)
    {
        lock (gate)
        {
            if (open.GetValueOrDefault(run.Id) == run)
                open.Remove(run.Id);
        }
    }
}
