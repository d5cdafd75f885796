using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json.Nodes;

namespace Memopt.Text.Jinja;

/// <summary>A name or key that is not there: prints nothing, is false, and has no parts.</summary>
internal sealed record Undefined(string Name);

/// <summary>A Python tuple.</summary>
internal class TupleValue(IEnumerable<object?> items) : List<object?>(items);

/// <summary>What <c>groupby</c> gives: a tuple whose parts have names.</summary>
internal sealed class GroupValue(object? grouper, List<object?> list) : TupleValue([grouper, list]);

/// <summary>A Python dict, in order of insertion.</summary>
internal sealed class DictValue : OrderedDictionary<object, object?>;

/// <summary>What <c>namespace()</c> gives: the one thing whose attributes may be set.</summary>
internal sealed class NamespaceValue
{
    public Dictionary<string, object?> Values { get; } = [];
}

/// <summary>What <c>loop</c> is; in a recursive loop it may be called.</summary>
internal sealed record LoopValue(Callable? Again, DictValue Parts);

/// <summary>Something a template may call.</summary>
internal delegate object? Callable(IReadOnlyList<object?> arguments, IReadOnlyDictionary<string, object?> named);

/// <summary>Python's view of values: truth, equality, printing.</summary>
internal static class Values
{
    // Python raises RecursionError at about 1,000 frames.
    private const int Deepest = 500;

    public static object? From(JsonNode? node) =>
        node switch
        {
            null => null,
            JsonArray array => array.Select(From).ToList(),
            JsonObject json => Dict(json.Select(pair => ((object)pair.Key, From(pair.Value)))),
            JsonValue value when value.TryGetValue<bool>(out var flag) => flag,
            JsonValue value when value.TryGetValue<string>(out var text) => text,
            JsonValue value when value.TryGetValue<long>(out var whole) => whole,
            JsonValue value when value.TryGetValue<int>(out var whole) => (long)whole,
            JsonValue value => double.Parse(value.ToJsonString(), NumberStyles.Float),
            _ => throw new JinjaException($"a value of {node.GetType().Name}"),
        };

    public static DictValue Dict(IEnumerable<(object Key, object? Value)> items)
    {
        var dict = new DictValue();
        foreach (var (key, value) in items)
            dict[key] = value;
        return dict;
    }

    public static bool True(object? value) =>
        value switch
        {
            null or Undefined => false,
            bool flag => flag,
            long whole => whole != 0,
            double real => real != 0,
            string text => text.Length > 0,
            List<object?> list => list.Count > 0,
            DictValue dict => dict.Count > 0,
            _ => true,
        };

    public static bool Same(object? left, object? right) => Same(left, right, 0);

    private static bool Same(object? left, object? right, int depth)
    {
        Compared(left, right, depth);
        return (left, right) switch
        {
            (Undefined, Undefined) => true,
            (bool or long or double, bool or long or double) => left is double || right is double
                ? Real(left) == Real(right)
                : Whole(left) == Whole(right),
            (List<object?> a, List<object?> b) => a is TupleValue == b is TupleValue
                && a.Count == b.Count
                && a.Zip(b).All(pair => Same(pair.First, pair.Second, depth + 1)),
            (DictValue a, DictValue b) => a.Count == b.Count
                && a.All(pair => b.TryGetValue(pair.Key, out var value) && Same(pair.Value, value, depth + 1)),
            _ => Equals(left, right),
        };
    }

    public static int Order(object? left, object? right) => Order(left, right, 0);

    private static int Order(object? left, object? right, int depth)
    {
        Compared(left, right, depth);
        return (left, right) switch
        {
            (string a, string b) => CompareCodePoints(a, b),
            (bool or long or double, bool or long or double) => left is double || right is double
                ? Real(left).CompareTo(Real(right))
                : Whole(left).CompareTo(Whole(right)),
            (List<object?> a, List<object?> b) => a.Zip(b)
                .Select(pair =>
                    Same(pair.First, pair.Second, depth + 1) ? 0 : Order(pair.First, pair.Second, depth + 1)
                )
                .FirstOrDefault(sign => sign != 0)
                is var first
                    and not 0
                ? first
                : a.Count.CompareTo(b.Count),
            _ => throw new JinjaException($"{TypeName(left)} and {TypeName(right)} have no order"),
        };
    }

    // A value that holds another twice, which holds a third twice, has a size that is exponential in its depth.
    private static void Compared(object? left, object? right, int depth)
    {
        CheckDepth(depth);
        RenderCost.Spend(left is string a && right is string b ? Math.Min(a.Length, b.Length) + 16 : 16);
    }

    private static int CompareCodePoints(string left, string right) =>
        left.EnumerateRunes()
            .Zip(right.EnumerateRunes())
            .Select(pair => pair.First.CompareTo(pair.Second))
            .FirstOrDefault(sign => sign != 0)
            is var first
                and not 0
            ? first
            : left.Length.CompareTo(right.Length);

    /// <summary>
    /// Refuses a value that is nested more than <see cref="Deepest"/> levels. The limit is fixed: how many levels a
    /// stack takes depends on the thread and on how far the JIT has optimized.
    /// </summary>
    public static void CheckDepth(int depth)
    {
        if (depth > Deepest)
            throw new JinjaException("a value that is nested too deeply");
        RuntimeHelpers.EnsureSufficientExecutionStack();
    }

    public static long Whole(object? value) =>
        value switch
        {
            bool flag => flag ? 1 : 0,
            long whole => whole,
            _ => throw new JinjaException($"{TypeName(value)} is not an integer"),
        };

    public static double Real(object? value) => value is double real ? real : Whole(value);

    public static string TypeName(object? value) =>
        value switch
        {
            null => "None",
            Undefined undefined => $"undefined '{undefined.Name}'",
            bool => "bool",
            long => "int",
            double => "float",
            string => "str",
            TupleValue => "tuple",
            List<object?> => "list",
            DictValue => "dict",
            NamespaceValue => "namespace",
            _ => "function",
        };

    /// <summary>What a loop goes over.</summary>
    public static List<object?> Items(object? value) =>
        value switch
        {
            List<object?> list => list,
            DictValue dict => [.. dict.Keys],
            string text => Letters(text),
            Undefined => [],
            _ => throw new JinjaException($"{TypeName(value)} is not iterable"),
        };

    private static List<object?> Letters(string text)
    {
        RenderCost.Spend(text.Length);
        RenderCost.Fit(text.Length, RenderCost.Letters);
        return [.. text.EnumerateRunes().Select(rune => (object?)rune.ToString())];
    }

    /// <summary>As <c>str()</c> does.</summary>
    public static string Print(object? value) =>
        value switch
        {
            Undefined => "",
            string text => text,
            _ => Repr(value),
        };

    /// <summary>As <c>repr()</c> does.</summary>
    public static string Repr(object? value)
    {
        var output = new StringBuilder();
        Represent(output, value, 0);
        return output.ToString();
    }

    private static void Represent(StringBuilder output, object? value, int depth)
    {
        CheckDepth(depth);
        RenderCost.Spend(16);
        RenderCost.Fit(output.Length);
        switch (value)
        {
            case string text:
                Quote(output, text);
                break;
            case TupleValue tuple:
                Several('(', tuple, entry => Represent(output, entry, depth + 1), tuple.Count == 1 ? ",)" : ")");
                break;
            case List<object?> list:
                Several('[', list, entry => Represent(output, entry, depth + 1), "]");
                break;
            case DictValue dict:
                Several(
                    '{',
                    dict,
                    pair =>
                    {
                        Represent(output, pair.Key, depth + 1);
                        output.Append(": ");
                        Represent(output, pair.Value, depth + 1);
                    },
                    "}"
                );
                break;
            default:
                output.Append(Plain(value));
                break;
        }

        void Several<T>(char open, IEnumerable<T> entries, Action<T> represent, string close)
        {
            output.Append(open);
            var first = true;
            foreach (var entry in entries)
            {
                output.Append(first ? "" : ", ");
                represent(entry);
                first = false;
            }
            output.Append(close);
        }
    }

    private static string Plain(object? value) =>
        value switch
        {
            null => "None",
            Undefined => "Undefined",
            bool flag => flag ? "True" : "False",
            long whole => whole.ToString(),
            double real => Float(real),
            _ => $"<{TypeName(value)}>",
        };

    public static string Float(double value)
    {
        if (double.IsNaN(value))
            return "nan";
        if (double.IsInfinity(value))
            return value > 0 ? "inf" : "-inf";
        if (value == 0)
            return double.IsNegative(value) ? "-0.0" : "0.0";
        var scientific = value.ToString("E16");
        var shortest = value.ToString("R");
        var digits = new string([.. shortest.Split('E')[0].Where(char.IsAsciiDigit)]).TrimStart('0').TrimEnd('0');
        var exponent = shortest.Contains('E')
            ? int.Parse(shortest.Split('E')[1]) + shortest.Split('E')[0].TrimStart('-').Split('.')[0].Length - 1
            : int.Parse(scientific.Split('E')[1]);
        var sign = value < 0 ? "-" : "";
        if (exponent is < -4 or >= 16)
            return $"{sign}{digits[0]}{(digits.Length > 1 ? "." + digits[1..] : "")}e{(exponent < 0 ? '-' : '+')}"
                + $"{Math.Abs(exponent):00}";
        if (exponent < 0)
            return $"{sign}0.{new string('0', -exponent - 1)}{digits}";
        var padded = digits.PadRight(exponent + 1, '0');
        return $"{sign}{padded[..(exponent + 1)]}.{(padded.Length > exponent + 1 ? padded[(exponent + 1)..] : "0")}";
    }

    private static void Quote(StringBuilder output, string text)
    {
        RenderCost.Spend(text.Length);
        RenderCost.Fit((long)output.Length + text.Length);
        var quote = text.Contains('\'') && !text.Contains('"') ? '"' : '\'';
        output.Append(quote);
        foreach (var rune in text.EnumerateRunes())
        {
            RenderCost.Spend();
            _ = rune.Value switch
            {
                '\n' => output.Append("\\n"),
                '\r' => output.Append("\\r"),
                '\t' => output.Append("\\t"),
                '\\' => output.Append(@"\\"),
                var code when code == quote => output.Append('\\').Append(quote),
                < 0x20 or 0x7F => output.Append($"\\x{rune.Value:x2}"),
                ' ' => output.Append(' '),
                _ when Rune.GetUnicodeCategory(rune)
                        is UnicodeCategory.Control
                            or UnicodeCategory.Format
                            or UnicodeCategory.OtherNotAssigned
                            or UnicodeCategory.PrivateUse
                            or UnicodeCategory.SpaceSeparator
                            or UnicodeCategory.LineSeparator
                            or UnicodeCategory.ParagraphSeparator => output.Append(
                    rune.Value < 0x100 ? $"\\x{rune.Value:x2}"
                    : rune.IsBmp ? $"\\u{rune.Value:x4}"
                    : $"\\U{rune.Value:x8}"
                ),
                _ when rune.IsBmp => output.Append((char)rune.Value),
                _ => output.Append(rune.ToString()),
            };
        }
        output.Append(quote);
    }
}
