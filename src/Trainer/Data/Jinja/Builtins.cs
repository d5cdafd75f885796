using System.Text;

namespace Memopt.Trainer.Data.Jinja;

/// <summary>Operators, attributes, methods, tests, filters and functions, as Jinja2 and Python have them.</summary>
internal static class Builtins
{
    private const int LongestRange = 1 << 20, LongestText = 1 << 25;

    public static IEnumerable<(string, object?)> Globals { get; } =
    [
        ("range", (Callable)Range),
        ("namespace", (Callable)Namespace),
        ("dict", (Callable)((given, named) => Values.Dict((given.Count > 0 && given[0] is DictValue from ? from.Select(pair => (pair.Key, pair.Value)) : [])
            .Concat(named.Select(pair => ((object)pair.Key, pair.Value)))))),
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
        for (var i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            if (items.Count >= LongestRange) throw new JinjaException($"a range longer than {LongestRange}");
            items.Add(i);
        }
        return items;
    }

    private static object? Namespace(IReadOnlyList<object?> given, IReadOnlyDictionary<string, object?> named)
    {
        var space = new NamespaceValue();
        if (given.Count > 0 && given[0] is DictValue from)
        {
            foreach (var (key, value) in from) space.Values[Values.Print(key)] = value;
        }
        foreach (var (key, value) in named) space.Values[key] = value;
        return space;
    }

    public static object? Operate(string symbol, object? left, object? right)
    {
        switch (symbol)
        {
            case "~": return Values.Print(left) + Values.Print(right);
            case "+" when left is string a && right is string b: return a + b;
            case "+" when left is TupleValue a && right is TupleValue b: return new TupleValue(a.Concat(b));
            case "+" when left is List<object?> a and not TupleValue && right is List<object?> b and not TupleValue: return a.Concat(b).ToList();
            case "*" when left is string text && right is long count: return Repeat(text, count);
            case "*" when left is long count && right is string text: return Repeat(text, count);
            case "*" when left is List<object?> list && right is long count:
                if (count * list.Count > LongestRange) throw new JinjaException("a list that is too long");
                return Enumerable.Repeat(list, (int)Math.Max(0, count)).SelectMany(items => items).ToList();
            case "%" when left is string format: return Format(format, right is TupleValue many ? many : [right]);
        }
        if (left is not (bool or long or double) || right is not (bool or long or double))
            throw new JinjaException($"{Values.TypeName(left)} {symbol} {Values.TypeName(right)} is not defined");
        try
        {
            if (symbol is "/" or "//" or "%" && Values.Real(right) == 0) throw new JinjaException("division by zero");
            if (symbol == "/") return Values.Real(left) / Values.Real(right);
            if (left is double || right is double || symbol == "**" && Values.Real(right) < 0)
            {
                var (x, y) = (Values.Real(left), Values.Real(right));
                return symbol switch
                {
                    "+" => x + y,
                    "-" => x - y,
                    "*" => x * y,
                    "//" => Math.Floor(x / y),
                    "%" => x - Math.Floor(x / y) * y,
                    _ => Math.Pow(x, y),
                };
            }
            var (m, n) = (Values.Whole(left), Values.Whole(right));
            return symbol switch
            {
                "+" => checked(m + n),
                "-" => checked(m - n),
                "*" => checked(m * n),
                "//" => Math.DivRem(m, n) is var (quotient, rest) && rest != 0 && rest < 0 != n < 0 ? quotient - 1 : quotient,
                "%" => (m % n + n) % n,
                _ => Power(m, n),
            };
        }
        catch (OverflowException)
        {
            throw new JinjaException($"{left} {symbol} {right} is too large");
        }
    }

    private static long Power(long value, long exponent)
    {
        var result = 1L;
        if (value is 0 or 1 || exponent == 0) return exponent == 0 ? 1 : value;
        for (var i = 0L; i < Math.Min(exponent, 64); i++) result = checked(result * value);
        return exponent > 64 && value != -1 ? throw new OverflowException() : value == -1 && exponent % 2 == 0 ? 1 : result;
    }

    private static string Repeat(string text, long count) => text.Length * Math.Max(0, (double)count) > LongestText
        ? throw new JinjaException("a text that is too long")
        : string.Concat(Enumerable.Repeat(text, (int)Math.Max(0, count)));

    public static bool Compare(string symbol, object? left, object? right) => symbol switch
    {
        "==" => Values.Same(left, right),
        "!=" => !Values.Same(left, right),
        "in" => Contains(right, left),
        "not in" => !Contains(right, left),
        "<" => Values.Order(left, right) < 0,
        ">" => Values.Order(left, right) > 0,
        "<=" => Values.Order(left, right) <= 0,
        _ => Values.Order(left, right) >= 0,
    };

    private static bool Contains(object? container, object? item) => container switch
    {
        string text => item is string part ? text.Contains(part, StringComparison.Ordinal) : throw new JinjaException($"{Values.TypeName(item)} in a str"),
        DictValue dict => item is not null && dict.ContainsKey(item),
        List<object?> list => list.Any(entry => Values.Same(entry, item)),
        Undefined => false,
        _ => throw new JinjaException($"{Values.TypeName(container)} holds nothing"),
    };

    public static object? Attribute(object? of, string key)
    {
        switch (of)
        {
            case Undefined undefined: throw new JinjaException($"'{undefined.Name}' is undefined, so it has no '{key}'");
            case NamespaceValue space: return space.Values.TryGetValue(key, out var kept) ? kept : new Undefined(key);
            case DictValue dict:
                if (Methods.Of(dict, key) is { } method) return method;
                return dict.TryGetValue(key, out var value) ? value : new Undefined(key);
            case string text: return Methods.Of(text, key) is { } own ? own : new Undefined(key);
            default: return new Undefined(key);
        }
    }

    public static object? Index(object? of, object? key)
    {
        switch (of)
        {
            case DictValue dict when key is not null && dict.TryGetValue(key, out var value): return value;
            case List<object?> list when key is long at: return at >= -list.Count && at < list.Count ? list[(int)(at < 0 ? at + list.Count : at)] : new Undefined($"{at}");
            case string when key is long at:
                var letters = Values.Items(of);
                return at >= -letters.Count && at < letters.Count ? letters[(int)(at < 0 ? at + letters.Count : at)] : new Undefined($"{at}");
            default: return key is string name || of is Undefined ? Attribute(of, key as string ?? Values.Print(key)) : new Undefined(Values.Print(key));
        }
    }

    public static object? Slice(object? of, long? from, long? to, long? by)
    {
        if (of is not (string or List<object?>)) throw new JinjaException($"{Values.TypeName(of)} cannot be sliced");
        var items = Values.Items(of);
        var step = by ?? 1;
        if (step == 0) throw new JinjaException("a slice with step 0");
        long Clamp(long? bound, long otherwise) => bound is not { } given ? otherwise
            : Math.Clamp(given < 0 ? given + items.Count : given, step > 0 ? 0 : -1, step > 0 ? items.Count : items.Count - 1);
        var (start, stop) = (Clamp(from, step > 0 ? 0 : items.Count - 1), Clamp(to, step > 0 ? items.Count : -1));
        var taken = new List<object?>();
        for (var i = start; step > 0 ? i < stop : i > stop; i += step) taken.Add(items[(int)i]);
        return of is string ? string.Concat(taken) : of is TupleValue ? new TupleValue(taken) : taken;
    }

    public static bool Test(string name, object? value, List<object?> arguments)
    {
        object? First() => arguments.Count > 0 ? arguments[0] : throw new JinjaException($"the test '{name}' needs a value");
        return name switch
        {
            "defined" => value is not Undefined,
            "undefined" => value is Undefined,
            "none" => value is null,
            "string" => value is string,
            "mapping" => value is DictValue,
            "iterable" => value is string or List<object?> or DictValue or Undefined,
            "sequence" => value is string or List<object?> or DictValue or Undefined,
            "number" => value is bool or long or double,
            "integer" => value is long,
            "float" => value is double,
            "boolean" => value is bool,
            "true" => value is true,
            "false" => value is false,
            "callable" => value is Callable,
            "odd" => Values.Whole(value) % 2 != 0,
            "even" => Values.Whole(value) % 2 == 0,
            "divisibleby" => Values.Whole(value) % Values.Whole(First()) == 0,
            "lower" => Methods.IsCased(Values.Print(value), upper: false),
            "upper" => Methods.IsCased(Values.Print(value), upper: true),
            "in" => Contains(First(), value),
            "equalto" or "eq" or "sameas" => Values.Same(value, First()),
            "ne" => !Values.Same(value, First()),
            "gt" or "greaterthan" => Values.Order(value, First()) > 0,
            "ge" => Values.Order(value, First()) >= 0,
            "lt" or "lessthan" => Values.Order(value, First()) < 0,
            "le" => Values.Order(value, First()) <= 0,
            _ => throw new JinjaException($"the test '{name}' is not supported"),
        };
    }

    /// <summary>printf-style formatting with the conversions templates use.</summary>
    public static string Format(string format, IReadOnlyList<object?> values)
    {
        var output = new StringBuilder();
        var used = 0;
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 >= format.Length)
            {
                output.Append(format[i]);
                continue;
            }
            if (format[++i] == '%')
            {
                output.Append('%');
                continue;
            }
            if (used >= values.Count) throw new JinjaException("too few values for the format");
            output.Append(format[i] switch
            {
                's' => Values.Print(values[used++]),
                'd' or 'i' => Values.Whole(values[used++]).ToString(),
                'r' => Values.Repr(values[used++]),
                'f' => Values.Real(values[used++]).ToString("F6"),
                _ => throw new JinjaException($"the format %{format[i]} is not supported"),
            });
        }
        return output.ToString();
    }

    public static object? Filter(string name, object? value, List<object?> given, Dictionary<string, object?> named)
    {
        object? Argument(int at, string key, object? otherwise = null) => given.Count > at ? given[at] : named.GetValueOrDefault(key, otherwise);
        string Text() => Values.Print(value);
        switch (name)
        {
            case "tojson":
                var indent = Argument(0, "indent");
                var separators = Argument(1, "separators") as List<object?>;
                return Values.Json(value, indent is long width ? new string(' ', (int)Math.Clamp(width, 0, 100)) : indent as string,
                    separators is [string item, ..] ? item : indent is null ? ", " : ",", separators is [_, string key] ? key : ": ", Values.True(Argument(2, "sort_keys")));
            case "trim": return Methods.Strip(Text(), Argument(0, "chars") as string, left: true, right: true);
            case "length" or "count": return value is Undefined ? 0L : (long)Values.Items(value).Count;
            case "string": return Text();
            case "safe" or "escape" or "e" or "forceescape": return name == "safe" ? value : Escape(Text());
            case "upper": return Text().ToUpperInvariant();
            case "lower": return Text().ToLowerInvariant();
            case "title": return Methods.Title(Text(), jinja: true);
            case "capitalize": return Methods.Capitalize(Text());
            case "replace": return Methods.Replace(Text(), Values.Print(Argument(0, "old")), Values.Print(Argument(1, "new")), Argument(2, "count") is long most ? most : -1);
            case "default" or "d": return value is Undefined || Values.True(Argument(1, "boolean")) && !Values.True(value) ? Argument(0, "default_value", "") : value;
            case "join":
                var parts = Values.Items(value);
                if (Argument(1, "attribute") is { } attribute) parts = [.. parts.Select(part => Path(part, attribute))];
                return string.Join(Values.Print(Argument(0, "d", "")), parts.Select(Values.Print));
            case "list": return Values.Items(value).ToList();
            case "first": return Values.Items(value) is [var head, ..] ? head : new Undefined("first");
            case "last": return Values.Items(value) is [.., var tail] ? tail : new Undefined("last");
            case "items": return value is Undefined ? new List<object?>() : Pairs(value);
            case "dictsort":
                var by = Values.Print(Argument(1, "by", "key")) == "value" ? 1 : 0;
                return Sorted(Pairs(value), pair => ((TupleValue)pair!)[by], Values.True(Argument(0, "case_sensitive")), Values.True(Argument(2, "reverse")));
            case "sort":
                return Sorted(Values.Items(value), entry => Argument(2, "attribute") is { } path ? Path(entry, path) : entry, Values.True(Argument(1, "case_sensitive")), Values.True(Argument(0, "reverse")));
            case "unique":
                var seen = new List<object?>();
                return Values.Items(value).Where(entry =>
                {
                    var mark = Fold(Argument(1, "attribute") is { } path ? Path(entry, path) : entry, Values.True(Argument(0, "case_sensitive")));
                    if (seen.Any(other => Values.Same(other, mark))) return false;
                    seen.Add(mark);
                    return true;
                }).ToList();
            case "reverse": return value is string text ? string.Concat(Values.Items(text).AsEnumerable().Reverse()) : Values.Items(value).AsEnumerable().Reverse().ToList();
            case "map":
                if (named.TryGetValue("attribute", out var mapped))
                    return Values.Items(value).Select(entry => Path(entry, mapped) is Undefined missing ? named.GetValueOrDefault("default", missing) : Path(entry, mapped)).ToList();
                var filter = given.Count > 0 ? Values.Print(given[0]) : throw new JinjaException("map needs a filter or an attribute");
                return Values.Items(value).Select(entry => Filter(filter, entry, [.. given.Skip(1)], named)).ToList();
            case "select" or "reject":
                return Values.Items(value).Where(entry => Passes(entry, given) == (name == "select")).ToList();
            case "selectattr" or "rejectattr":
                if (given.Count == 0) throw new JinjaException($"{name} needs an attribute");
                return Values.Items(value).Where(entry => Passes(Path(entry, given[0]), [.. given.Skip(1)]) == (name == "selectattr")).ToList();
            case "int": return ToInteger(value) ?? Argument(0, "default", 0L);
            case "float":
                return value is bool or long or double ? Values.Real(value)
                    : value is string digits && double.TryParse(digits, System.Globalization.NumberStyles.Float, null, out var real) ? real : Argument(0, "default", 0.0);
            case "abs": return value is double number ? (object)Math.Abs(number) : Math.Abs(Values.Whole(value));
            case "round":
                var power = Math.Pow(10, Argument(0, "precision") is long places ? places : 0);
                var scaled = Values.Real(value) * power;
                return Values.Print(Argument(1, "method", "common")) switch { "ceil" => Math.Ceiling(scaled), "floor" => Math.Floor(scaled), _ => Math.Round(scaled, MidpointRounding.ToEven) } / power;
            case "sum": return Values.Items(value).Select(entry => Argument(0, "attribute") is { } path ? Path(entry, path) : entry).Aggregate(Argument(1, "start", 0L), (sum, entry) => Operate("+", sum, entry));
            case "min" or "max":
                var ordered = (List<object?>)Sorted(Values.Items(value), entry => entry, false, name == "max");
                return ordered.Count > 0 ? ordered[0] : new Undefined(name);
            case "indent": return Indent(Text(), Argument(0, "width", 4L), Values.True(Argument(1, "first")), Values.True(Argument(2, "blank")));
            case "format": return Format(Text(), given);
            case "wordcount": return (long)Text().Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Length;
            default: throw new JinjaException($"the filter '{name}' is not supported");
        }
    }

    private static bool Passes(object? value, List<object?> test) =>
        test.Count == 0 ? Values.True(value) : Test(Values.Print(test[0]) switch { "==" => "eq", "!=" => "ne", ">" => "gt", ">=" => "ge", "<" => "lt", "<=" => "le", var name => name }, value, [.. test.Skip(1)]);

    private static object? Path(object? value, object? path) => path is long at
        ? Index(value, at)
        : Values.Print(path).Split('.').Aggregate(value, (current, key) => Index(current, long.TryParse(key, out var index) ? index : key));

    private static List<object?> Pairs(object? value) => value is DictValue dict
        ? [.. dict.Select(pair => (object?)new TupleValue([pair.Key, pair.Value]))]
        : throw new JinjaException($"{Values.TypeName(value)} has no items");

    private static object? Fold(object? value, bool caseSensitive) => value is string text && !caseSensitive ? text.ToLowerInvariant() : value;

    private static object Sorted(IEnumerable<object?> items, Func<object?, object?> key, bool caseSensitive, bool reverse)
    {
        var comparer = Comparer<object?>.Create(Values.Order);
        object? Key(object? item) => Fold(key(item), caseSensitive);
        return (reverse ? items.OrderByDescending(Key, comparer) : items.OrderBy(Key, comparer)).ToList();
    }

    private static long? ToInteger(object? value) => value switch
    {
        bool or long => Values.Whole(value),
        double real when Math.Abs(real) < long.MaxValue => (long)real,
        string text when long.TryParse(text.Trim(), out var whole) => whole,
        string text when double.TryParse(text, System.Globalization.NumberStyles.Float, null, out var real) && Math.Abs(real) < long.MaxValue => (long)real,
        _ => null,
    };

    private static string Escape(string text) =>
        text.Replace("&", "&amp;").Replace("<", "&lt;").Replace(">", "&gt;").Replace("'", "&#39;").Replace("\"", "&#34;");

    private static string Indent(string text, object? width, bool first, bool blank)
    {
        var margin = width is string given ? given : new string(' ', (int)Math.Clamp(Values.Whole(width), 0, 1000));
        return string.Join('\n', text.Split('\n').Select((line, index) => index == 0 ? first ? margin + line : line : line.Length > 0 || blank ? margin + line : line));
    }
}
