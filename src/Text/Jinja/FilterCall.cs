namespace Memopt.Text.Jinja;

/// <summary>What a filter is given: the value before the bar, and arguments by place or by name.</summary>
internal sealed class FilterCall(object? value, List<object?> given, Dictionary<string, object?> named)
{
    public object? Value => value;

    public List<object?> Given => given;

    public Dictionary<string, object?> Named => named;

    /// <summary>The value as it is printed.</summary>
    public string Text() => Values.Print(value);

    public List<object?> Items() => Values.Items(value);

    /// <param name="at">The argument's place.</param>
    /// <param name="key">Its name.</param>
    /// <param name="otherwise">Stands in where it is not given.</param>
    public object? Argument(int at, string key, object? otherwise = null) =>
        given.Count > at ? given[at] : named.GetValueOrDefault(key, otherwise);

    public bool Flag(int at, string key) => Values.True(Argument(at, key));

    /// <summary>A whole number; any other value counts as none.</summary>
    public long Whole(int at, string key, long otherwise) => Argument(at, key) is long whole ? whole : otherwise;
}
