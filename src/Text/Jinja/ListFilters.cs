namespace Memopt.Text.Jinja;

/// <summary>Filters of lists and dicts.</summary>
internal static class ListFilters
{
    private const int LongestPath = 1000;

    public static Dictionary<string, Filter> Table { get; } =
        new()
        {
            ["batch"] = Batch,
            ["count"] = Length,
            ["dictsort"] = SortDict,
            ["first"] = call => call.Items() is [var head, ..] ? head : new Undefined("first"),
            ["groupby"] = GroupBy,
            ["items"] = call => call.Value is Undefined ? new List<object?>() : Pairs(call.Value),
            ["join"] = Join,
            ["last"] = call => call.Items() is [.., var tail] ? tail : new Undefined("last"),
            ["length"] = Length,
            ["list"] = call => call.Items().ToList(),
            ["map"] = Map,
            ["max"] = call => First(call, "max", largest: true),
            ["min"] = call => First(call, "min", largest: false),
            ["reject"] = call => Select(call, wanted: false),
            ["rejectattr"] = call => SelectByAttribute(call, "rejectattr", wanted: false),
            ["reverse"] = Reverse,
            ["select"] = call => Select(call, wanted: true),
            ["selectattr"] = call => SelectByAttribute(call, "selectattr", wanted: true),
            ["slice"] = Slice,
            ["sort"] = Sort,
            ["sum"] = Sum,
            ["unique"] = Unique,
        };

    /// <summary>The items of a dict.</summary>
    public static List<object?> Pairs(object? value) =>
        value is DictValue dict
            ? [.. dict.Select(pair => (object?)new TupleValue([pair.Key, pair.Value]))]
            : throw new JinjaException($"{Values.TypeName(value)} has no items");

    private static object? Length(FilterCall call) =>
        call.Value is string letters ? letters.EnumerateRunes().LongCount() : (long)call.Items().Count;

    private static object? Reverse(FilterCall call) =>
        call.Value is string text
            ? string.Concat(Values.Items(text).AsEnumerable().Reverse())
            : call.Items().AsEnumerable().Reverse().ToList();

    private static string Join(FilterCall call)
    {
        var parts = call.Items();
        if (call.Argument(1, "attribute") is { } attribute)
            parts = [.. parts.Select(part => Path(part, attribute))];
        return RenderCost.Join(Values.Print(call.Argument(0, "d", "")), parts.Select(Values.Print));
    }

    private static object? Sum(FilterCall call) =>
        call.Items()
            .Select(entry => call.Argument(0, "attribute") is { } path ? Path(entry, path) : entry)
            .Aggregate(call.Argument(1, "start", 0L), (sum, entry) => Operators.Operate("+", sum, entry));

    private static List<object?> Map(FilterCall call)
    {
        if (call.Named.TryGetValue("attribute", out var attribute))
            return Some(call.Value)
                .Select(entry => Path(entry, attribute, call.Named.GetValueOrDefault("default")))
                .ToList();
        var filter =
            call.Given.Count > 0
                ? Values.Print(call.Given[0])
                : throw new JinjaException("map needs a filter or an attribute");
        return Some(call.Value)
            .Select(entry => Filters.Apply(filter, entry, [.. call.Given.Skip(1)], call.Named))
            .ToList();
    }

    private static List<object?> Select(FilterCall call, bool wanted) =>
        Some(call.Value).Where(entry => Passes(entry, call.Given) == wanted).ToList();

    private static List<object?> SelectByAttribute(FilterCall call, string name, bool wanted) =>
        call.Given.Count == 0
            ? throw new JinjaException($"{name} needs an attribute")
            : Some(call.Value)
                .Where(entry => Passes(Path(entry, call.Given[0]), [.. call.Given.Skip(1)]) == wanted)
                .ToList();

    /// <summary>What map, select and their like go over: none and other false values count as nothing.</summary>
    private static List<object?> Some(object? value) => Values.True(value) ? Values.Items(value) : [];

    private static bool Passes(object? value, List<object?> test) =>
        test.Count == 0 ? Values.True(value) : TestBuiltins.Holds(Values.Print(test[0]), value, [.. test.Skip(1)]);

    /// <summary>An item, or an item of an item by dots; a default stands in at whichever step nothing is
    /// found.</summary>
    private static object? Path(object? value, object? path, object? otherwise = null)
    {
        if (path is string { Length: > LongestPath })
            throw RenderCost.TooLong;
        RenderCost.Spend(RenderCost.Size(path));
        foreach (
            var key in path is long at
                ? [at]
                : Values
                    .Print(path)
                    .Split('.')
                    .Select(part => long.TryParse(part, out var index) ? (object)index : part)
        )
        {
            value = Operators.Index(value, key);
            if (value is Undefined && otherwise is not null)
                value = otherwise;
        }
        return value;
    }

    private static object? Fold(object? value, bool caseSensitive) =>
        value is string text && !caseSensitive ? text.ToLowerInvariant() : value;

    private static List<object?> SortDict(FilterCall call)
    {
        var by = Values.Print(call.Argument(1, "by", "key")) == "value" ? 1 : 0;
        return Sorted(
            Pairs(call.Value),
            pair => ((TupleValue)pair!)[by],
            call.Flag(0, "case_sensitive"),
            call.Flag(2, "reverse")
        );
    }

    private static List<object?> Sort(FilterCall call)
    {
        var caseSensitive = call.Flag(1, "case_sensitive");
        var attribute = call.Argument(2, "attribute");
        return Sorted(call.Items(), Key, caseSensitive, call.Flag(0, "reverse"));

        object? Key(object? entry) =>
            attribute is string several && several.Contains(',')
                ? new TupleValue(several.Split(',').Select(one => Fold(Path(entry, one), caseSensitive)))
            : attribute is null ? entry
            : Path(entry, attribute);
    }

    private static object? First(FilterCall call, string name, bool largest)
    {
        var attribute = call.Argument(1, "attribute");
        var sorted = Sorted(
            call.Items(),
            entry => attribute is null ? entry : Path(entry, attribute),
            call.Flag(0, "case_sensitive"),
            largest
        );
        return sorted.Count > 0 ? sorted[0] : new Undefined(name);
    }

    private static List<object?> Sorted(
        IEnumerable<object?> items,
        Func<object?, object?> key,
        bool caseSensitive,
        bool reverse
    )
    {
        var comparer = Comparer<object?>.Create(
            (left, right) => Values.Same(left, right) ? 0 : Values.Order(left, right)
        );
        object? Key(object? item) => Fold(key(item), caseSensitive);
        return (reverse ? items.OrderByDescending(Key, comparer) : items.OrderBy(Key, comparer)).ToList();
    }

    private static List<object?> Unique(FilterCall call)
    {
        var (caseSensitive, attribute) = (call.Flag(0, "case_sensitive"), call.Argument(1, "attribute"));
        var seen = new List<object?>();
        return call.Items().Where(IsNew).ToList();

        bool IsNew(object? entry)
        {
            var mark = Fold(attribute is null ? entry : Path(entry, attribute), caseSensitive);
            if (seen.Any(other => Values.Same(other, mark)))
                return false;
            seen.Add(mark);
            return true;
        }
    }

    private static List<object?> Batch(FilterCall call)
    {
        var (items, size) = (call.Items(), Values.Whole(call.Argument(0, "linecount")));
        var fill = call.Argument(1, "fill_with");
        if (size < 1)
            throw new JinjaException("batch needs a size of 1 or more");
        var rows = items.Chunk((int)Math.Min(size, RenderCost.List)).Select(row => (object?)row.ToList()).ToList();
        if (fill is not null && rows is [.., List<object?> last])
            last.AddRange(Enumerable.Repeat(fill, (int)Math.Min(size, RenderCost.List) - last.Count));
        return rows;
    }

    private static List<object?> Slice(FilterCall call)
    {
        var (items, count) = (call.Items(), Values.Whole(call.Argument(0, "slices")));
        var fill = call.Argument(1, "fill_with");
        if (count is < 1 or > RenderCost.List)
            throw new JinjaException("slice needs a number of 1 or more");
        var (size, longer, rows, at) = (items.Count / (int)count, items.Count % (int)count, new List<object?>(), 0);
        for (var i = 0; i < count; i++)
        {
            var row = items.GetRange(at, size + (i < longer ? 1 : 0));
            at += row.Count;
            if (fill is not null && i >= longer)
                row.Add(fill);
            rows.Add(row);
        }
        return rows;
    }

    private static List<object?> GroupBy(FilterCall call)
    {
        var (path, otherwise) = (call.Argument(0, "attribute"), call.Argument(1, "default"));
        var caseSensitive = call.Flag(2, "case_sensitive");
        object? Key(object? entry) => Path(entry, path, otherwise);
        var groups = new List<object?>();
        foreach (var item in Sorted(call.Items(), Key, caseSensitive, reverse: false))
        {
            if (
                groups is [.., GroupValue last]
                && Values.Same(Fold(last[0], caseSensitive), Fold(Key(item), caseSensitive))
            )
                ((List<object?>)last[1]!).Add(item);
            else
                groups.Add(new GroupValue(Key(item), [item]));
        }
        return groups;
    }
}
