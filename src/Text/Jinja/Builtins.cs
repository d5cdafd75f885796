namespace Memopt.Text.Jinja;

/// <summary>The names that every template knows.</summary>
internal static class Builtins
{
    public static IEnumerable<(string, object?)> Globals { get; } =
    [
        ("range", (Callable)Range),
        ("namespace", (Callable)Namespace),
        ("cycler", (Callable)Cycler),
        ("joiner", (Callable)Joiner),
        (
            "dict",
            (Callable)(
                (given, named) =>
                    Values.Dict(
                        (
                            given.Count > 0 && given[0] is DictValue from
                                ? from.Select(pair => (pair.Key, pair.Value))
                                : []
                        ).Concat(named.Select(pair => ((object)pair.Key, pair.Value)))
                    )
            )
        ),
    ];

    private static object? Range(IReadOnlyList<object?> given, IReadOnlyDictionary<string, object?> named)
    {
        var bounds = given.Select(Values.Whole).ToList();
        var (start, stop, step) = bounds.Count switch
        {
            1 => (0, bounds[0], 1),
            2 => (bounds[0], bounds[1], 1),
            3 when bounds[2] != 0 => (bounds[0], bounds[1], bounds[2]),
            _ => throw new JinjaException("range takes 1 to 3 integers, the step not 0"),
        };
        var items = new List<object?>();
        for (Int128 i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            if (items.Count >= RenderCost.List)
                throw new JinjaException($"a range longer than {RenderCost.List}");
            items.Add((long)i);
        }
        return items;
    }

    private static object? Namespace(IReadOnlyList<object?> given, IReadOnlyDictionary<string, object?> named)
    {
        var space = new NamespaceValue();
        if (given.Count > 0 && given[0] is DictValue from)
        {
            foreach (var (key, value) in from)
                space.Values[Values.Print(key)] = value;
        }
        foreach (var (key, value) in named)
            space.Values[key] = value;
        return space;
    }

    private static object? Cycler(IReadOnlyList<object?> given, IReadOnlyDictionary<string, object?> named)
    {
        if (given.Count == 0)
            throw new JinjaException("cycler needs values");
        var (at, cycler) = (0, new NamespaceValue());
        void Move(int to) => cycler.Values["current"] = given[at = to % given.Count];
        cycler.Values["next"] = (Callable)(
            (_, _) =>
            {
                var now = given[at];
                Move(at + 1);
                return now;
            }
        );
        cycler.Values["reset"] = (Callable)(
            (_, _) =>
            {
                Move(0);
                return null;
            }
        );
        Move(0);
        return cycler;
    }

    private static object? Joiner(IReadOnlyList<object?> given, IReadOnlyDictionary<string, object?> named)
    {
        var (used, separator) = (false, given.Count > 0 ? given[0] : named.GetValueOrDefault("sep", ", "));
        return (Callable)(
            (_, _) =>
            {
                var text = used ? separator : "";
                used = true;
                return text;
            }
        );
    }
}
