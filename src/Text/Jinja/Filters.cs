using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>What may follow a bar.</summary>
internal static class Filters
{
    private static readonly HashSet<string> Names =
    [
        .. (
            "abs attr batch capitalize center count d default dictsort e escape first float forceescape format "
            + "groupby indent int items join last length list lower map max min reject rejectattr replace reverse "
            + "round safe select selectattr slice sort string sum title tojson trim truncate unique upper urlencode "
            + "wordcount"
        ).Split(' '),
    ];

    private const int LongestPath = 1000;

    public static bool Knows(string name) => Names.Contains(name);

    public static object? Apply(string name, object? value, List<object?> given, Dictionary<string, object?> named)
    {
        object? Argument(int at, string key, object? otherwise = null) =>
            given.Count > at ? given[at] : named.GetValueOrDefault(key, otherwise);
        string Text() => Values.Print(value);
        RuntimeHelpers.EnsureSufficientExecutionStack(); // map may name map
        RenderCost.Spend(RenderCost.Size(value) + given.Count);
        switch (name)
        {
            case "tojson":
                // The order of transformers' own tojson, which is not that of Jinja's.
                var indent = Argument(1, "indent");
                var separators = Argument(2, "separators") as List<object?>;
                return new JsonWriter(
                    EnsureAscii: Values.True(Argument(0, "ensure_ascii")),
                    Indent: indent is long width ? new string(' ', (int)Math.Clamp(width, 0, 100)) : indent as string,
                    ItemSeparator: separators is [string item, ..] ? item
                        : indent is null ? ", "
                        : ",",
                    KeySeparator: separators is [_, string key] ? key : ": ",
                    SortKeys: Values.True(Argument(3, "sort_keys"))
                ).Write(value);
            case "trim":
                return Methods.Strip(Text(), Argument(0, "chars") as string, left: true, right: true);
            case "length" or "count":
                return value is string letters ? letters.EnumerateRunes().LongCount() : (long)Values.Items(value).Count;
            case "string":
                return Text();
            case "safe" or "escape" or "e" or "forceescape":
                return name == "safe" ? Text() : Escape(Text());
            case "upper":
                return CaseMapping.Upper(Text());
            case "lower":
                return CaseMapping.Lower(Text());
            case "title":
                return Methods.Title(Text(), jinja: true);
            case "capitalize":
                return Methods.Capitalize(Text());
            case "replace":
                return Methods.Replace(
                    Text(),
                    Values.Print(Argument(0, "old")),
                    Values.Print(Argument(1, "new")),
                    Argument(2, "count") is long most ? most : -1
                );
            case "default" or "d":
                return value is Undefined || Values.True(Argument(1, "boolean")) && !Values.True(value)
                    ? Argument(0, "default_value", "")
                    : value;
            case "join":
                var parts = Values.Items(value);
                if (Argument(1, "attribute") is { } attribute)
                    parts = [.. parts.Select(part => Path(part, attribute))];
                return RenderCost.Join(Values.Print(Argument(0, "d", "")), parts.Select(Values.Print));
            case "list":
                return Values.Items(value).ToList();
            case "first":
                return Values.Items(value) is [var head, ..] ? head : new Undefined("first");
            case "last":
                return Values.Items(value) is [.., var tail] ? tail : new Undefined("last");
            case "items":
                return value is Undefined ? new List<object?>() : Pairs(value);
            case "dictsort":
                var by = Values.Print(Argument(1, "by", "key")) == "value" ? 1 : 0;
                return Sorted(
                    Pairs(value),
                    pair => ((TupleValue)pair!)[by],
                    Values.True(Argument(0, "case_sensitive")),
                    Values.True(Argument(2, "reverse"))
                );
            case "sort":
                object? Key(object? entry, object? path) =>
                    path is string several && several.Contains(',')
                        ? new TupleValue(
                            several
                                .Split(',')
                                .Select(one => Fold(Path(entry, one), Values.True(Argument(1, "case_sensitive"))))
                        )
                    : path is null ? entry
                    : Path(entry, path);
                return Sorted(
                    Values.Items(value),
                    entry => Key(entry, Argument(2, "attribute")),
                    Values.True(Argument(1, "case_sensitive")),
                    Values.True(Argument(0, "reverse"))
                );
            case "unique":
                var seen = new List<object?>();
                return Values
                    .Items(value)
                    .Where(entry =>
                    {
                        var mark = Fold(
                            Argument(1, "attribute") is { } path ? Path(entry, path) : entry,
                            Values.True(Argument(0, "case_sensitive"))
                        );
                        if (seen.Any(other => Values.Same(other, mark)))
                            return false;
                        seen.Add(mark);
                        return true;
                    })
                    .ToList();
            case "reverse":
                return value is string text
                    ? string.Concat(Values.Items(text).AsEnumerable().Reverse())
                    : Values.Items(value).AsEnumerable().Reverse().ToList();
            case "map":
                if (named.TryGetValue("attribute", out var mapped))
                    return Some(value)
                        .Select(entry => Path(entry, mapped, named.GetValueOrDefault("default")))
                        .ToList();
                var filter =
                    given.Count > 0
                        ? Values.Print(given[0])
                        : throw new JinjaException("map needs a filter or an attribute");
                return Some(value).Select(entry => Apply(filter, entry, [.. given.Skip(1)], named)).ToList();
            case "select" or "reject":
                return Some(value).Where(entry => Passes(entry, given) == (name == "select")).ToList();
            case "selectattr" or "rejectattr":
                if (given.Count == 0)
                    throw new JinjaException($"{name} needs an attribute");
                return Some(value)
                    .Where(entry => Passes(Path(entry, given[0]), [.. given.Skip(1)]) == (name == "selectattr"))
                    .ToList();
            case "int":
                return ToInteger(value, Argument(1, "base") is long radix ? radix : 10) ?? Argument(0, "default", 0L);
            case "float":
                return value is bool or long or double ? Values.Real(value)
                    : value is string digits && double.TryParse(digits, NumberStyles.Float, null, out var real) ? real
                    : Argument(0, "default", 0.0);
            case "abs":
                return value is double number ? (object)Math.Abs(number) : Math.Abs(Values.Whole(value));
            case "round"
                when value is bool or long
                    && Argument(0, "precision", 0L) is >= 0L
                    && Values.Print(Argument(1, "method", "common")) == "common":
                return Values.Whole(value);
            case "round":
                var power = Math.Pow(10, Argument(0, "precision") is long places ? places : 0);
                var scaled = Values.Real(value) * power;
                var rounded = Values.Print(Argument(1, "method", "common")) switch
                {
                    "ceil" => Math.Ceiling(scaled),
                    "floor" => Math.Floor(scaled),
                    _ => Math.Round(scaled, MidpointRounding.ToEven),
                };
                return rounded / power;
            case "sum":
                return Values
                    .Items(value)
                    .Select(entry => Argument(0, "attribute") is { } path ? Path(entry, path) : entry)
                    .Aggregate(Argument(1, "start", 0L), (sum, entry) => Operators.Operate("+", sum, entry));
            case "min" or "max":
                var ordered =
                    (List<object?>)
                        Sorted(
                            Values.Items(value),
                            entry => Argument(1, "attribute") is { } path ? Path(entry, path) : entry,
                            Values.True(Argument(0, "case_sensitive")),
                            name == "max"
                        );
                return ordered.Count > 0 ? ordered[0] : new Undefined(name);
            case "indent":
                return Indent(
                    Text(),
                    Argument(0, "width", 4L),
                    Values.True(Argument(1, "first")),
                    Values.True(Argument(2, "blank"))
                );
            case "format":
                return Formats.Percent(Text(), given);
            // Never an item, as a dot may be.
            case "attr":
                var part = Values.Print(Argument(0, "name"));
                return value is DictValue dict
                    ? Methods.Of(dict, part) is { } method
                        ? method
                        : new Undefined(part)
                    : Operators.Attribute(value, part);
            case "batch":
                return Batch(Values.Items(value), Values.Whole(Argument(0, "linecount")), Argument(1, "fill_with"));
            case "slice":
                return Slice(Values.Items(value), Values.Whole(Argument(0, "slices")), Argument(1, "fill_with"));
            case "groupby":
                return Groups(
                    Values.Items(value),
                    entry => Path(entry, Argument(0, "attribute"), Argument(1, "default")),
                    Values.True(Argument(2, "case_sensitive"))
                );
            case "center":
                return Methods.Center(Text(), Argument(0, "width") is long wide ? wide : 80, ' ');
            case "truncate":
                return Truncate(
                    Text(),
                    Argument(0, "length") is long length ? length : 255,
                    Values.True(Argument(1, "killwords")),
                    Values.Print(Argument(2, "end", "...")),
                    Argument(3, "leeway") is long leeway ? leeway : 5
                );
            case "urlencode":
                return value is not (List<object?> or DictValue)
                    ? Encode(Text())
                    : RenderCost.Join(
                        "&",
                        (value is DictValue ? Pairs(value) : Values.Items(value)).Select(pair =>
                            RenderCost.Join("=", Values.Items(pair).Select(entry => EncodeQuery(Values.Print(entry))))
                        )
                    );
            case "wordcount":
                return Words(Text());
            default:
                throw new JinjaException($"the filter '{name}' is not supported");
        }
    }

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

    private static List<object?> Pairs(object? value) =>
        value is DictValue dict
            ? [.. dict.Select(pair => (object?)new TupleValue([pair.Key, pair.Value]))]
            : throw new JinjaException($"{Values.TypeName(value)} has no items");

    private static object? Fold(object? value, bool caseSensitive) =>
        value is string text && !caseSensitive ? text.ToLowerInvariant() : value;

    private static object Sorted(
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

    private static long? ToInteger(object? value, long radix) =>
        value switch
        {
            bool or long => Values.Whole(value),
            double real when Math.Abs(real) < long.MaxValue => (long)real,
            string text when radix != 10 => FromRadix(text.Trim().ToLowerInvariant().Replace("_", ""), radix),
            string text
                when long.TryParse(
                    text.Trim().Replace("_", ""),
                    NumberStyles.AllowLeadingSign,
                    CultureInfo.InvariantCulture,
                    out var whole
                ) => whole,
            string text
                when double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var real)
                    && Math.Abs(real) < long.MaxValue => (long)real,
            _ => null,
        };

    private static long? FromRadix(string text, long radix)
    {
        var prefix = radix switch
        {
            16 => "0x",
            8 => "0o",
            2 => "0b",
            _ => throw new JinjaException($"integers of base {radix} are not supported"),
        };
        var (negative, total) = (text.StartsWith('-'), 0L);
        if (negative)
            text = text[1..];
        if (text.StartsWith(prefix, StringComparison.Ordinal))
            text = text[2..];
        foreach (var digit in text)
        {
            var worth = char.IsAsciiHexDigit(digit) ? Convert.ToInt32($"{digit}", 16) : 99;
            if (worth >= radix || total > long.MaxValue / 32)
                return null;
            total = total * radix + worth;
        }
        return text.Length == 0 ? null
            : negative ? -total
            : total;
    }

    private static string Escape(string text) =>
        new[] { ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;") }.Aggregate(
            text,
            (current, pair) => Methods.Replace(current, pair.Item1, pair.Item2, -1)
        );

    private static string Indent(string text, object? width, bool first, bool blank)
    {
        var margin = width is string given ? given : new string(' ', (int)Math.Clamp(Values.Whole(width), 0, 1000));
        return RenderCost.Join(
            "\n",
            Methods
                .Parts(text, "\n")
                .Select((line, index) => (index == 0 ? first : blank || line.Length > 0) ? margin + line : line)
        );
    }

    private static List<object?> Batch(List<object?> items, long size, object? fill)
    {
        if (size < 1)
            throw new JinjaException("batch needs a size of 1 or more");
        var rows = items.Chunk((int)Math.Min(size, RenderCost.List)).Select(row => (object?)row.ToList()).ToList();
        if (fill is not null && rows is [.., List<object?> last])
            last.AddRange(Enumerable.Repeat(fill, (int)Math.Min(size, RenderCost.List) - last.Count));
        return rows;
    }

    private static List<object?> Slice(List<object?> items, long count, object? fill)
    {
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

    private static List<object?> Groups(List<object?> items, Func<object?, object?> key, bool caseSensitive)
    {
        var groups = new List<object?>();
        foreach (var item in (List<object?>)Sorted(items, key, caseSensitive, reverse: false))
        {
            if (
                groups is [.., GroupValue last]
                && Values.Same(Fold(last[0], caseSensitive), Fold(key(item), caseSensitive))
            )
                ((List<object?>)last[1]!).Add(item);
            else
                groups.Add(new GroupValue(key(item), [item]));
        }
        return groups;
    }

    private static string Truncate(string text, long length, bool cutsWords, string end, long leeway)
    {
        var letters = Values.Items(text);
        if (letters.Count <= (double)length + leeway)
            return text;
        var kept = string.Concat(letters.Take((int)Math.Clamp((double)length - end.Length, 0, letters.Count)));
        return (cutsWords || !kept.Contains(' ') ? kept : kept[..kept.LastIndexOf(' ')]) + end;
    }

    private static long Words(string text)
    {
        var (count, within) = (0L, false);
        foreach (var rune in text.EnumerateRunes())
        {
            var belongs = Rune.IsLetter(rune) || Rune.IsNumber(rune) || rune.Value == '_';
            if (belongs && !within)
                count++;
            within = belongs;
        }
        return count;
    }

    private static string EncodeQuery(string text) => Escaped(text).Replace("%20", "+");

    private static string Encode(string text) => Escaped(text).Replace("%2F", "/");

    private static string Escaped(string text)
    {
        RenderCost.Fit(9L * text.Length); // three bytes a character, three characters a byte
        return Uri.EscapeDataString(text);
    }
}
