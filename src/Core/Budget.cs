using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Memopt.Core;

/// <summary>
/// What one piece of work on a stranger's file may cost: time, memory and depth of recursion. The work calls
/// <see cref="Spend"/> in its loops and <see cref="Descend"/> where it recurses. A budget stays on the thread that
/// made it; several threads may take pieces of one (<see cref="Piece"/>).
/// </summary>
/// <param name="what">What is at work, with its file, as the subject of a message: "The chat template in FILE".</param>
/// <param name="time">Time that the thread computes, from the construction: a loaded machine takes none of it.</param>
/// <param name="bytes">Sum of all memory that the work reports; memory that is freed again is counted too.</param>
/// <param name="stop">Ends the work by <see cref="OperationCanceledException"/>.</param>
public sealed partial class Budget(string what, TimeSpan time, long bytes, CancellationToken stop = default)
    : IDisposable
{
    /// <summary>Greatest depth of recursion. Rust's regular expressions have 250, Python's recursion 1,000.</summary>
    public const int Depth = 256;

    // A look at the clock costs about 300 ns, a call without one about 1 ns.
    private const int CallsPerLook = 256,
        LargePiece = 1 << 16;

    private readonly TimeSpan begun = ThreadTime();
    private Budget? whole; // takes the time that this piece needs beyond its own
    private TimeSpan own;
    private long spent,
        overdrawn;
    private int calls,
        level;

    /// <summary>Takes bytes from the budget; every so many calls, or at once for many bytes, looks at the
    /// clock.</summary>
    /// <exception cref="UserFault">The budget is used up.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public void Spend(long cost = 0)
    {
        if (cost > bytes - spent)
            throw Over($"more than {bytes >> 20:N0} MiB of memory");
        spent += cost;
        if (++calls % CallsPerLook == 0 || cost > LargePiece)
            Check();
    }

    /// <summary>Looks at the clock and for a stop.</summary>
    /// <exception cref="UserFault">The time is used up.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public void Check()
    {
        stop.ThrowIfCancellationRequested();
        var left = whole is null ? time : own + time - new TimeSpan(Interlocked.Read(ref whole.overdrawn));
        if (ThreadTime() - begun > left)
            throw Over($"more than {time.TotalSeconds:0.#} s of time");
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
    /// A budget for a piece of a long work, such as one row of a file: its own time and memory come on top. Beyond its
    /// own time it takes from this budget's, which all pieces share and which pieces that need less fill up again: a
    /// file of many rows is bounded too, and honest rows never end. Dispose it at the end of the piece.
    /// </summary>
    /// <param name="own">Time that honest work of this size takes at most.</param>
    /// <param name="more">Bytes that this piece may take beyond those of every piece.</param>
    /// <param name="until">Ends this piece; without it, what ends this budget.</param>
    public Budget Piece(TimeSpan own, long more = 0, CancellationToken until = default) =>
        new(what, time, bytes + more, until.CanBeCanceled ? until : stop) { whole = this, own = own };

    /// <summary>Ends a piece, and settles its time with those before and after it.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref whole, null) is not { } shared)
            return;
        var over = (ThreadTime() - begun - own).Ticks;
        long before;
        do before = Interlocked.Read(ref shared.overdrawn);
        while (Interlocked.CompareExchange(ref shared.overdrawn, Math.Max(0, before + over), before) != before);
    }

    private UserFault Over(string found) =>
        new(
            $"{what} costs more than a model's files may.",
            found,
            next: "docs/security.md lists the limits; use another model, or fix the file"
        )
        {
            OverBudget = true,
        };

    private static TimeSpan ThreadTime() =>
        OperatingSystem.IsLinux() && clock_gettime(ThreadClock, out var now) == 0
            ? new(now.Seconds * TimeSpan.TicksPerSecond + now.Nanoseconds / TimeSpan.NanosecondsPerTick)
            : Stopwatch.GetElapsedTime(0);

    private const int ThreadClock = 3; // CLOCK_THREAD_CPUTIME_ID

    private struct Time
    {
        public nint Seconds,
            Nanoseconds;
    }

    [LibraryImport("libc")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int clock_gettime(int clock, out Time time);
}
