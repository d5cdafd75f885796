namespace Memopt.Core.Tests;

/// <summary>A clock that runs so many times faster: waits of minutes pass in moments, in the order that they
/// would.</summary>
internal sealed class FastClock(double speed) : TimeProvider
{
    private readonly long start = TimeProvider.System.GetTimestamp();
    private readonly DateTimeOffset began = TimeProvider.System.GetUtcNow();

    public override long TimestampFrequency => TimeProvider.System.TimestampFrequency;

    public override long GetTimestamp() => start + (long)((TimeProvider.System.GetTimestamp() - start) * speed);

    public override DateTimeOffset GetUtcNow() => began + GetElapsedTime(start);

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
        new ScaledTimer(TimeProvider.System.CreateTimer(callback, state, Real(dueTime), Real(period)), Real);

    private TimeSpan Real(TimeSpan time) =>
        time < TimeSpan.Zero || time == Timeout.InfiniteTimeSpan ? time : time / speed;

    private sealed class ScaledTimer(ITimer timer, Func<TimeSpan, TimeSpan> real) : ITimer
    {
        public bool Change(TimeSpan dueTime, TimeSpan period) => timer.Change(real(dueTime), real(period));

        public void Dispose() => timer.Dispose();

        public ValueTask DisposeAsync() => timer.DisposeAsync();
    }
}
