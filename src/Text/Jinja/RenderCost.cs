using System.Text;
using Memopt.Core;

namespace Memopt.Text.Jinja;

/// <summary>
/// What a render costs. The functions of a template are reached through delegates and LINQ, so no budget is handed to
/// them: it is that of the render which this thread is at. Memory is counted as all bytes that the thread allocates.
/// </summary>
internal sealed class RenderCost
{
    /// <summary>Most characters of a text, most characters that become a list, most entries of a list.</summary>
    public const int Text = 1 << 25,
        Letters = 1 << 20,
        List = 1 << 20;

    // Characters or entries that are worked on between two looks at the clock and at the allocations.
    private const int WorkPerLook = 4096;

    [ThreadStatic]
    private static RenderCost? running;

    private readonly Budget budget;
    private long work,
        allocated = GC.GetAllocatedBytesForCurrentThread();

    private RenderCost(Budget budget) => this.budget = budget;

    public static JinjaException TooLong => new("a text or a list that is too long");

    /// <summary>Runs a render whose cost is taken from a budget.</summary>
    public static T Of<T>(Budget budget, Func<T> render)
    {
        running = new(budget);
        try
        {
            return render();
        }
        finally
        {
            running = null;
        }
    }

    /// <summary>Tells of work, by the characters or entries that it goes over.</summary>
    /// <exception cref="UserFault">The budget is used up.</exception>
    /// <exception cref="OperationCanceledException">A stop was asked for.</exception>
    public static void Spend(long work = 1)
    {
        if (running is not { } cost || (cost.work += work) < WorkPerLook)
            return;
        var now = GC.GetAllocatedBytesForCurrentThread();
        cost.budget.Spend(now - cost.allocated);
        cost.budget.Check();
        (cost.allocated, cost.work) = (now, 0);
    }

    /// <summary>How much work a function has with a value at least; not with what its entries hold.</summary>
    public static long Size(object? value) =>
        value switch
        {
            string text => text.Length,
            List<object?> list => list.Count,
            DictValue dict => dict.Count,
            _ => 1,
        };

    /// <summary>Tells of a text or a list that a function is about to make, and refuses it when it would be too
    /// long.</summary>
    public static void Fit(long length, int most = Text)
    {
        if (length > most)
            throw TooLong;
    }

    /// <summary>As <c>string.Join</c>, but no part is asked for once the text is too long.</summary>
    public static string Join(string separator, IEnumerable<string> parts)
    {
        var output = new StringBuilder();
        var first = true;
        foreach (var part in parts)
        {
            Spend(part.Length + separator.Length + 1L);
            Fit((long)output.Length + separator.Length + part.Length);
            output.Append(first ? "" : separator).Append(part);
            first = false;
        }
        return output.ToString();
    }
}
