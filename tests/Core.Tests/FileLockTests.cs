namespace Memopt.Core.Tests;

public sealed class FileLockTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private string File => Path.Combine(folder, "x.lock");

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void Lock_that_is_held_cannot_be_taken_until_released()
    {
        using (FileLock.TryTake(File))
        {
            Assert.Null(FileLock.TryTake(File));
            Assert.Throws<IOException>(() => FileLock.Take(File, TimeSpan.FromMilliseconds(20)));
        }
        using var taken = FileLock.TryTake(File);
        Assert.NotNull(taken);
    }

    [Fact]
    public async Task Waiter_reports_once_and_takes_the_lock_when_it_is_free()
    {
        var held = FileLock.TryTake(File)!;
        var told = 0;
        var waits = new TaskCompletionSource();
        var waiter = Task.Run(() =>
        {
            using var taken = FileLock.Take(
                File,
                () =>
                {
                    told++;
                    waits.SetResult();
                },
                CancellationToken.None
            );
        });
        await waits.Task;
        Assert.False(waiter.IsCompleted);
        held.Dispose();
        await waiter;
        Assert.Equal(1, told);
    }

    [Fact]
    public void Waiter_that_is_cancelled_ends()
    {
        using var held = FileLock.TryTake(File);
        using var stop = new CancellationTokenSource();
        Assert.Throws<OperationCanceledException>(() => FileLock.Take(File, stop.Cancel, stop.Token));
    }

    [Fact]
    public void Lock_wait_with_a_limit_ends_when_it_is_cancelled()
    {
        using var held = FileLock.TryTake(File);
        using var stop = new CancellationTokenSource(20);
        Assert.Throws<OperationCanceledException>(() => FileLock.TryTake(File, TimeSpan.FromDays(1), stop.Token));
        Assert.Null(FileLock.TryTake(File, TimeSpan.Zero));
    }

    [Fact]
    public async Task Lock_awaited_reports_once_and_is_taken_when_it_is_free()
    {
        var held = FileLock.TryTake(File)!;
        var reports = 0;
        var waiter = FileLock.TakeAsync(
            File,
            Timeout.InfiniteTimeSpan,
            new FastClock(100),
            () => reports++,
            CancellationToken.None
        );
        Assert.Equal(1, reports); // before anything was awaited
        Assert.False(waiter.IsCompleted);
        held.Dispose();
        using var taken = await waiter;
        Assert.Null(FileLock.TryTake(File));
        Assert.Equal(1, reports);
    }

    [Fact]
    public async Task Lock_awaited_ends_at_its_limit_and_when_it_is_cancelled()
    {
        using var held = FileLock.TryTake(File);
        var late = await Assert.ThrowsAsync<IOException>(() =>
            FileLock.TakeAsync(File, TimeSpan.FromSeconds(2), new FastClock(100), null, CancellationToken.None)
        );
        Assert.Contains(File, late.Message);
        using var stop = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() =>
            FileLock.TakeAsync(File, Timeout.InfiniteTimeSpan, TimeProvider.System, stop.Cancel, stop.Token)
        );
    }

    [Fact]
    public void Lock_file_that_cannot_be_opened_throws()
    {
        Assert.ThrowsAny<Exception>(() => FileLock.TryTake(Path.Combine(folder, "missing", "x.lock")));
        Assert.ThrowsAny<Exception>(() => FileLock.TryTake(folder));
    }
}
