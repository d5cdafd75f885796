namespace Memopt.Text.Jinja;

/// <summary>Makes the <c>loop</c> of each step of a for block.</summary>
/// <param name="items">What the block goes over.</param>
/// <param name="depth">How many recursive loops it is in, itself included.</param>
/// <param name="again">Runs a recursive loop once more; null in others.</param>
internal sealed class LoopVariable(List<object?> items, int depth, Callable? again)
{
    private TupleValue? last; // the values at the last call of changed
    private Callable? changed; // one for all steps

    /// <param name="i">The step, from 0.</param>
    public LoopValue At(int i) =>
        new(
            again,
            Values.Dict([
                ("index", (long)i + 1),
                ("index0", (long)i),
                ("revindex", (long)items.Count - i),
                ("revindex0", (long)items.Count - i - 1),
                ("first", i == 0),
                ("last", i == items.Count - 1),
                ("length", (long)items.Count),
                ("depth", (long)depth),
                ("depth0", depth - 1L),
                ("previtem", i > 0 ? items[i - 1] : new Undefined("previtem")),
                ("nextitem", i + 1 < items.Count ? items[i + 1] : new Undefined("nextitem")),
                ("cycle", Cycle(i)),
                ("changed", changed ??= Changed),
            ])
        );

    private static Callable Cycle(int i) =>
        (arguments, _) =>
            arguments.Count > 0 ? arguments[i % arguments.Count] : throw new JinjaException("cycle needs values");

    private object? Changed(IReadOnlyList<object?> arguments, IReadOnlyDictionary<string, object?> named)
    {
        var now = new TupleValue(arguments);
        var differs = last is null || !Values.Same(last, now);
        last = now;
        return differs;
    }
}
