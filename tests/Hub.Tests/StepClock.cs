namespace Memopt.Hub.Tests;

/// <summary>Time that stands still while anything is done, and goes to the next alarm when all that is left to do is to
/// wait.</summary>
internal sealed class StepClock : TimeProvider
{
    private readonly Lock changing = new();
    private readonly List<Alarm> alarms = [];
    private TimeSpan now;

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override long GetTimestamp() => GetUtcNow().Ticks;

    public override DateTimeOffset GetUtcNow()
    {
        lock (changing)
            return DateTimeOffset.UnixEpoch + now;
    }

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var alarm = new Alarm(this, () => callback(state));
        alarm.Change(dueTime, period);
        return alarm;
    }

    /// <summary>Runs until all are done, each of which waits for one alarm at a time. Alarms of a day are limits, which
    /// nothing reaches.</summary>
    public async Task RunAsync(IReadOnlyCollection<Task> tasks)
    {
        while (tasks.Count(task => !task.IsCompleted) is > 0 and var left)
        {
            List<Alarm> ring = [];
            lock (changing)
            {
                var waits = alarms.Where(alarm => alarm.Due - now < PullFixture.Patience / 2).ToList();
                if (waits.Count == left)
                {
                    now = waits.Min(alarm => alarm.Due);
                    ring = waits.FindAll(alarm => alarm.Due == now);
                    alarms.RemoveAll(ring.Contains);
                }
            }
            ring.ForEach(alarm => alarm.Ring());
            await Task.Delay(1);
        }
    }

    private sealed class Alarm(StepClock clock, Action ring) : ITimer
    {
        public TimeSpan Due { get; private set; }

        public Action Ring => ring;

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            lock (clock.changing)
            {
                clock.alarms.Remove(this);
                Due = clock.now + dueTime;
                if (dueTime != Timeout.InfiniteTimeSpan)
                    clock.alarms.Add(this);
                return true;
            }
        }

        public void Dispose()
        {
            lock (clock.changing)
                clock.alarms.Remove(this);
        }

        public ValueTask DisposeAsync()
        {
            Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
