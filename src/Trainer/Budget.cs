using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Memopt.Trainer;

/// <summary>
/// What one piece of work on a stranger's file may cost: time, memory and depth of recursion. The work calls
/// <see cref="Spend"/> in its loops and <see cref="Descend"/> where it recurses. One thread at a time uses a budget;
/// several threads may take pieces of one (<see cref="Piece"/>).
/// </summary>
/// <param name="what">What is at work, with its file, as the subject of a message: "The chat template in FILE".</param>
/// <param name="time">Wall time, counted from the construction.</param>
/// <param name="bytes">Sum of all memory that the work reports; memory that is freed again is counted too.</param>
/// <param name="stop">Ends the work by <see cref="OperationCanceledException"/>.</param>
public sealed class Budget(string what, TimeSpan time, long bytes, CancellationToken stop = default) : IDisposable
{
    /// <summary>Greatest depth of recursion. Rust's regular expressions have 250, Python's recursion 1,000.</summary>
    public const int Depth = 256;

    // A look at the clock costs about 25 ns, a call without one about 1 ns.
    private const int CallsPerLook = 64, LargePiece = 1 << 16;

    private readonly long begun = Stopwatch.GetTimestamp();
    private Budget? whole;   // takes the time that this piece needs beyond its own
    private TimeSpan own;
    private long spent, overdrawn;
    private int calls, level;

    /// <summary>Takes bytes from the budget; every so many calls, or at once for many bytes, looks at the clock.</summary>
    /// <exception cref="UserFault">The budget is used up.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public void Spend(long cost = 0)
    {
        spent = cost > bytes ? long.MaxValue : spent + cost;
        if (spent > bytes) throw Over($"more than {bytes >> 20:N0} MiB of memory");
        if (++calls % CallsPerLook == 0 || cost > LargePiece) Check();
    }

    /// <summary>Looks at the clock and for a stop.</summary>
    /// <exception cref="UserFault">The time is used up.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public void Check()
    {
        stop.ThrowIfCancellationRequested();
        var left = whole is null ? time : own + time - new TimeSpan(Interlocked.Read(ref whole.overdrawn));
        if (Stopwatch.GetElapsedTime(begun) > left) throw Over($"more than {time.TotalSeconds:0.#} s of time");
    }

    /// <summary>Goes one level of recursion deeper; <see cref="Ascend"/> comes back.</summary>
    /// <exception cref="UserFault">The structure is too deep, or the thread's stack is nearly used up.</exception>
    public void Descend()
    {
        if (++level > Depth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw Over($"more than {level - 1:N0} levels, one in the other");
    }

    /// <summary>Ends what <see cref="Descend"/> began.</summary>
    public void Ascend() => level--;

    /// <summary>
    /// A budget for a piece of a long work, such as one row of a file: memory and depth anew, and a time of its own.
    /// What it needs beyond its own time is taken from this budget's time, which all pieces share, so that a file of
    /// many rows is bounded too, while honest rows cost the shared time nothing. Dispose it at the end of the piece.
    /// </summary>
    /// <param name="own">Time that such a piece may take at no cost to the others.</param>
    /// <param name="more">Bytes that this piece may have beyond those of this budget.</param>
    /// <param name="until">Ends this piece; without it, what ends this budget.</param>
    public Budget Piece(TimeSpan own, long more = 0, CancellationToken until = default) =>
        new(what, time, bytes + more, until.CanBeCanceled ? until : stop) { whole = this, own = own };

    /// <summary>
    /// Ends a piece and takes what it overdrew from the time that all pieces share. What other pieces have left of their
    /// own time is given back to it: of many, some wait for a processor or for the garbage collector.
    /// </summary>
    public void Dispose() => Interlocked.Exchange(ref whole, null)?.Draw((Stopwatch.GetElapsedTime(begun) - own).Ticks);

    private void Draw(long ticks)
    {
        for (long before = -1, now = Interlocked.Read(ref overdrawn); now != before;)
        {
            before = now;
            now = Interlocked.CompareExchange(ref overdrawn, Math.Max(0, before + ticks), before);
        }
    }

    private UserFault Over(string limit) => new($"{what} costs more than a model's files may.", found: limit,
        next: "docs/security.md lists the limits; use another model, or mend the file")
    { OverBudget = true };
}
