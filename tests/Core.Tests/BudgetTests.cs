namespace Memopt.Core.Tests;

public sealed class BudgetTests
{
    private static readonly TimeSpan Ample = TimeSpan.FromHours(1);

    [Fact]
    public void Budget_beyond_its_bytes_refuses_with_the_name_and_the_limit()
    {
        var budget = new Budget("The template x", Ample, 2 << 20);
        budget.Spend(2 << 20);
        var fault = Assert.Throws<UserFault>(() => budget.Spend(1));
        Assert.Contains("The template x", fault.Message);
        Assert.Equal("more than 2 MiB of memory", fault.Found);
        Assert.Throws<UserFault>(() => new Budget("x", Ample, 1).Spend(long.MaxValue));
    }

    [Fact]
    public void Budget_beyond_its_time_refuses()
    {
        var budget = new Budget("x", TimeSpan.FromMilliseconds(20), 0);
        Assert.Contains("0 s of time", Assert.Throws<UserFault>(() => Endless(budget)).Found);
    }

    [Fact]
    public void Budget_does_not_count_waits_and_the_time_of_other_threads()
    {
        if (!OperatingSystem.IsLinux())
            return;
        var budget = new Budget("x", TimeSpan.FromMilliseconds(200), 0);
        var other = new Thread(() =>
            Assert.Throws<UserFault>(() => Endless(new Budget("y", TimeSpan.FromMilliseconds(300), 0)))
        );
        other.Start();
        other.Join();
        budget.Check();
    }

    [Fact]
    public void Budget_that_is_stopped_throws_cancellation()
    {
        using var stop = new CancellationTokenSource();
        var budget = new Budget("x", Ample, 0, stop.Token);
        budget.Check();
        stop.Cancel();
        Assert.Throws<OperationCanceledException>(() => Endless(budget));
        Assert.Throws<OperationCanceledException>(() => Endless(budget.Piece(Ample)));
    }

    [Fact]
    public void Depth_beyond_the_limit_is_refused_and_ascending_frees_levels()
    {
        var budget = new Budget("x", Ample, 0);
        for (var time = 0; time < 2; time++)
        {
            for (var level = 0; level < Budget.Depth; level++)
                budget.Descend();
            for (var level = 0; level < Budget.Depth; level++)
                budget.Ascend();
        }
        for (var level = 0; level < Budget.Depth; level++)
            budget.Descend();
        Assert.Contains("256 levels", Assert.Throws<UserFault>(budget.Descend).Found);
    }

    [Fact]
    public void Pieces_that_all_overdraw_their_time_end_together()
    {
        var whole = new Budget("x", TimeSpan.FromMilliseconds(20), 0);
        Assert.Throws<UserFault>(() =>
        {
            for (var pieces = 0; pieces < int.MaxValue; pieces++)
            {
                using var piece = whole.Piece(TimeSpan.Zero);
                for (var i = 0; i < 10_000; i++)
                    piece.Spend();
                piece.Check();
            }
        });
    }

    [Fact]
    public void Pieces_within_their_time_continue_and_pay_back_what_one_overdrew()
    {
        var whole = new Budget("x", TimeSpan.FromMilliseconds(100), 0);
        for (var i = 0; i < 30; i++)
        {
            // Each takes longer than it may, then one gives back as much: 0.3 s in all, of 0.1 s that is shared.
            using (var piece = whole.Piece(TimeSpan.Zero))
                Assert.Throws<UserFault>(() => Endless(new Budget("y", TimeSpan.FromMilliseconds(10), 0)));
            using (var piece = whole.Piece(Ample))
                piece.Check();
        }
        using var last = whole.Piece(TimeSpan.Zero);
        last.Check();
    }

    [Fact]
    public void Pieces_may_spend_the_shared_bytes_and_their_own()
    {
        var whole = new Budget("x", Ample, 100);
        for (var i = 0; i < 3; i++)
        {
            using var piece = whole.Piece(Ample, more: 50);
            piece.Spend(150);
            Assert.Throws<UserFault>(() => piece.Spend(1));
        }
    }

    private static void Endless(Budget budget)
    {
        while (true)
            budget.Spend();
    }
}
