namespace Memopt.Text.Jinja;

/// <summary>The methods of Python's str and dict that change nothing.</summary>
internal static class Methods
{
    public static Callable? Of(DictValue dict, string name) =>
        name switch
        {
            "items" => (_, _) => dict.Select(pair => (object?)new TupleValue([pair.Key, pair.Value])).ToList(),
            "keys" => (_, _) => dict.Keys.ToList<object?>(),
            "values" => (_, _) => dict.Values.ToList(),
            "copy" => (_, _) => Values.Dict(dict.Select(pair => (pair.Key, pair.Value))),
            "get" => (given, _) =>
                given.Count > 0 && given[0] is { } key && dict.TryGetValue(key, out var value) ? value
                : given.Count > 1 ? given[1]
                : null,
            _ => null,
        };

    public static Callable? Of(List<object?> list, string name) =>
        name switch
        {
            "count" => (given, _) => (long)list.Count(item => Values.Same(item, given.Count > 0 ? given[0] : null)),
            "index" => (given, _) =>
                list.FindIndex(item => Values.Same(item, given.Count > 0 ? given[0] : null)) is >= 0 and var at
                    ? (long)at
                    : throw new JinjaException("index of a value that is not in the list"),
            "copy" when list is not TupleValue => (_, _) => list.ToList(),
            _ => null,
        };

    public static Callable? Of(string text, string name) => StringMethods.Of(text, name);
}
