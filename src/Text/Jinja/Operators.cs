using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>Operators, comparisons, attributes, items and slices, as Python has them.</summary>
internal static class Operators
{
    public static object? Operate(string symbol, object? left, object? right)
    {
        switch (symbol)
        {
            case "~":
                return Joined(Values.Print(left), Values.Print(right));
            case "+" when left is string a && right is string b:
                return Joined(a, b);
            case "+" when left is TupleValue a && right is TupleValue b:
                return new TupleValue(Joined(a, b));
            case "+" when left is List<object?> a and not TupleValue && right is List<object?> b and not TupleValue:
                return Joined(a, b);
            case "*" when left is string text && right is long count:
                return Repeat(text, count);
            case "*" when left is long count && right is string text:
                return Repeat(text, count);
            case "*" when left is long && right is List<object?>:
                return Operate(symbol, right, left);
            case "*" when left is List<object?> list && right is long count:
                return Repeat(list, count);
            case "%" when left is string format:
                return Formats.Percent(format, right is TupleValue several ? several : [right]);
            default:
                return Calculate(symbol, left, right);
        }
    }

    private static object? Calculate(string symbol, object? left, object? right)
    {
        if (left is not (bool or long or double) || right is not (bool or long or double))
            throw new JinjaException($"{Values.TypeName(left)} {symbol} {Values.TypeName(right)} is not defined");
        try
        {
            if (symbol is "/" or "//" or "%" && Values.Real(right) == 0)
                throw new JinjaException("division by zero");
            if (symbol == "/")
                return Values.Real(left) / Values.Real(right);
            return left is double || right is double || symbol == "**" && Values.Real(right) < 0
                ? Calculate(symbol, Values.Real(left), Values.Real(right))
                : (object)Calculate(symbol, Values.Whole(left), Values.Whole(right));
        }
        catch (OverflowException)
        {
            throw new JinjaException($"{left} {symbol} {right} is too large");
        }
    }

    private static double Calculate(string symbol, double x, double y) =>
        symbol switch
        {
            "+" => x + y,
            "-" => x - y,
            "*" => x * y,
            "//" => Math.Floor(x / y),
            "%" => x - Math.Floor(x / y) * y,
            _ => Math.Pow(x, y),
        };

    private static long Calculate(string symbol, long m, long n) =>
        symbol switch
        {
            "+" => checked(m + n),
            "-" => checked(m - n),
            "*" => checked(m * n),
            "//" => Math.DivRem(m, n) is var (quotient, rest) && rest != 0 && rest < 0 != n < 0
                ? quotient - 1
                : quotient,
            "%" => (m % n + n) % n,
            _ => Power(m, n),
        };

    private static long Power(long value, long exponent)
    {
        var result = 1L;
        if (value is 0 or 1 || exponent == 0)
            return exponent == 0 ? 1 : value;
        for (var i = 0L; i < Math.Min(exponent, 64); i++)
            result = checked(result * value);
        return exponent > 64 && value != -1 ? throw new OverflowException()
            : value == -1 && exponent % 2 == 0 ? 1
            : result;
    }

    private static string Joined(string left, string right)
    {
        RenderCost.Spend((long)left.Length + right.Length);
        RenderCost.Fit((long)left.Length + right.Length);
        return left + right;
    }

    private static List<object?> Joined(List<object?> left, List<object?> right)
    {
        RenderCost.Spend(left.Count + right.Count);
        RenderCost.Fit(left.Count + right.Count, RenderCost.List);
        return [.. left, .. right];
    }

    private static List<object?> Repeat(List<object?> list, long count)
    {
        if (count * (double)list.Count > RenderCost.List)
            throw RenderCost.TooLong;
        var many = list.Count == 0 ? [] : Enumerable.Repeat(list, (int)Math.Max(0, count)).SelectMany(items => items);
        return list is TupleValue ? new TupleValue(many) : many.ToList();
    }

    private static string Repeat(string text, long count)
    {
        if (text.Length == 0 || count <= 0)
            return "";
        if (text.Length * (double)count > RenderCost.Text)
            throw RenderCost.TooLong;
        RenderCost.Spend(text.Length * count);
        return new StringBuilder(text.Length * (int)count).Insert(0, text, (int)count).ToString();
    }

    public static bool Compare(string symbol, object? left, object? right) =>
        symbol switch
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

    public static bool Contains(object? container, object? item) =>
        container switch
        {
            string text => item is string part
                ? new Search(part).In(text) >= 0
                : throw new JinjaException($"{Values.TypeName(item)} in a str"),
            DictValue dict => item is not null && dict.ContainsKey(item),
            List<object?> list => list.Any(entry => Values.Same(entry, item)),
            Undefined => false,
            _ => throw new JinjaException($"{Values.TypeName(container)} holds nothing"),
        };

    public static object? Attribute(object? of, string key)
    {
        switch (of)
        {
            case Undefined undefined:
                throw new JinjaException($"'{undefined.Name}' is undefined, so it has no '{key}'");
            case NamespaceValue space:
                return space.Values.TryGetValue(key, out var kept) ? kept : new Undefined(key);
            case DictValue dict:
                if (Methods.Of(dict, key) is { } method)
                    return Costing(method, dict.Count);
                return dict.TryGetValue(key, out var value) ? value : new Undefined(key);
            case string text:
                return Methods.Of(text, key) is { } own ? Costing(own, text.Length) : new Undefined(key);
            case LoopValue loop:
                return loop.Parts.GetValueOrDefault(key, new Undefined(key));
            case GroupValue group when key is "grouper" or "list":
                return group[key == "grouper" ? 0 : 1];
            case List<object?> list:
                return Methods.Of(list, key) is { } listed ? Costing(listed, list.Count) : new Undefined(key);
            default:
                return new Undefined(key);
        }
    }

    /// <summary>A method that tells of the work that it has with its own text, list or dict.</summary>
    private static Callable Costing(Callable method, long work) =>
        (given, named) =>
        {
            RenderCost.Spend(work);
            return method(given, named);
        };

    public static object? Index(object? of, object? key)
    {
        switch (of)
        {
            case DictValue dict when key is not null && dict.TryGetValue(key, out var value):
                return value;
            case List<object?> list when key is long at:
                return at >= -list.Count && at < list.Count
                    ? list[(int)(at < 0 ? at + list.Count : at)]
                    : new Undefined($"{at}");
            case string text when key is long at && IsPlain(text):
                return at >= -text.Length && at < text.Length
                    ? $"{text[(int)(at < 0 ? at + text.Length : at)]}"
                    : new Undefined($"{at}");
            case string when key is long at:
                var letters = Values.Items(of);
                return at >= -letters.Count && at < letters.Count
                    ? letters[(int)(at < 0 ? at + letters.Count : at)]
                    : new Undefined($"{at}");
            default:
                return key is string name || of is Undefined
                    ? Attribute(of, key as string ?? Values.Print(key))
                    : new Undefined(Values.Print(key));
        }
    }

    public static object? Slice(object? of, long? from, long? to, long? by)
    {
        // As an index that nothing is found at; a missing name has no parts.
        if (of is not (string or List<object?>))
            return of is Undefined
                ? throw new JinjaException($"{Values.TypeName(of)} cannot be sliced")
                : new Undefined("slice");
        var plain = of is string given && IsPlain(given) ? given : null;
        var items = plain is null ? Values.Items(of) : [];
        var (step, count) = (by ?? 1, plain?.Length ?? items.Count);
        RenderCost.Spend(count);
        if (step == 0)
            throw new JinjaException("a slice with step 0");
        long Clamp(long? bound, long otherwise) =>
            bound is not { } given
                ? otherwise
                : Math.Clamp(given < 0 ? given + count : given, step > 0 ? 0 : -1, step > 0 ? count : count - 1);
        var (start, stop) = (Clamp(from, step > 0 ? 0 : count - 1), Clamp(to, step > 0 ? count : -1));
        if (plain is not null && step == 1)
            return start < stop ? plain[(int)start..(int)stop] : "";
        if (plain is not null)
            items = Values.Items(plain);
        var taken = new List<object?>();
        for (Int128 i = start; step > 0 ? i < stop : i > stop; i += step)
            taken.Add(items[(int)i]);
        return of is string ? string.Concat(taken)
            : of is TupleValue ? new TupleValue(taken)
            : taken;
    }

    /// <summary>Whether each character of a text is one unit of it, as nearly always, so that places need no
    /// counting.</summary>
    private static bool IsPlain(string text)
    {
        RenderCost.Spend(text.Length / 16);
        return !text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF');
    }
}
