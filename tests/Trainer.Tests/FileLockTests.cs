using Memopt.Core;
using Memopt.Trainer.Tests.Hub;

namespace Memopt.Trainer.Tests;

public sealed class FileLockTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private string File => Path.Combine(folder, "x.lock");

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void A_lock_that_is_held_is_not_taken_until_it_is_let_go()
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
    public async Task Who_waits_says_so_once_and_takes_the_lock_when_it_is_free()
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
    public void A_stop_ends_the_wait()
    {
        using var held = FileLock.TryTake(File);
        using var stop = new CancellationTokenSource();
        Assert.Throws<OperationCanceledException>(() => FileLock.Take(File, stop.Cancel, stop.Token));
    }

    [Fact]
    public void A_stop_ends_a_wait_of_limited_patience()
    {
        using var held = FileLock.TryTake(File);
        using var stop = new CancellationTokenSource(20);
        Assert.Throws<OperationCanceledException>(() => FileLock.TryTake(File, TimeSpan.FromDays(1), stop.Token));
        Assert.Null(FileLock.TryTake(File, TimeSpan.Zero));
    }

    [Fact]
    public async Task Who_waits_without_a_thread_says_so_once_and_takes_the_lock_when_it_is_free()
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
    public async Task A_wait_without_a_thread_ends_with_its_patience_and_with_a_stop()
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
    public void A_file_that_cannot_be_opened_is_no_held_lock()
    {
        Assert.ThrowsAny<Exception>(() => FileLock.TryTake(Path.Combine(folder, "missing", "x.lock")));
        Assert.ThrowsAny<Exception>(() => FileLock.TryTake(folder));
    }
}
