using System.Runtime.CompilerServices;

namespace Memopt.Text.Jinja;

/// <summary>What a filter makes of its call.</summary>
internal delegate object? Filter(FilterCall call);

/// <summary>What may follow a bar.</summary>
internal static class Filters
{
    private static readonly Dictionary<string, Filter> table = new([
        .. TextFilters.Table,
        .. ListFilters.Table,
        .. NumberFilters.Table,
        new("tojson", Json),
        new("default", Default),
        new("d", Default),
        new("attr", Attribute),
    ]);

    public static bool Knows(string name) => table.ContainsKey(name);

    public static object? Apply(string name, object? value, List<object?> given, Dictionary<string, object?> named)
    {
        RuntimeHelpers.EnsureSufficientExecutionStack(); // map may name map
        RenderCost.Spend(RenderCost.Size(value) + given.Count);
        return table.TryGetValue(name, out var filter)
            ? filter(new(value, given, named))
            : throw new JinjaException($"the filter '{name}' is not supported");
    }

    private static string Json(FilterCall call)
    {
        // The order of transformers' own tojson, which is not that of Jinja's.
        var indent = call.Argument(1, "indent");
        var separators = call.Argument(2, "separators") as List<object?>;
        return new JsonWriter(
            EnsureAscii: call.Flag(0, "ensure_ascii"),
            Indent: indent is long width ? new string(' ', (int)Math.Clamp(width, 0, 100)) : indent as string,
            ItemSeparator: separators is [string item, ..] ? item
                : indent is null ? ", "
                : ",",
            KeySeparator: separators is [_, string key] ? key : ": ",
            SortKeys: call.Flag(3, "sort_keys")
        ).Write(call.Value);
    }

    private static object? Default(FilterCall call) =>
        call.Value is Undefined || call.Flag(1, "boolean") && !Values.True(call.Value)
            ? call.Argument(0, "default_value", "")
            : call.Value;

    /// <summary>Never an item, as a dot may be.</summary>
    private static object? Attribute(FilterCall call)
    {
        var name = Values.Print(call.Argument(0, "name"));
        if (call.Value is not DictValue dict)
            return Operators.Attribute(call.Value, name);
        return Methods.Of(dict, name) is { } method ? method : new Undefined(name);
    }
}
