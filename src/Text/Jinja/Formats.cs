using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Memopt.Text.Jinja;

/// <summary>Python's two ways to format: <c>'%05.2f' % x</c> and <c>'{:>8,}'.format(x)</c>.</summary>
internal static partial class Formats
{
    private const int Widest = 10_000;

    [GeneratedRegex(
        @"\G%(?:\((?<key>[^)]*)\))?(?<flags>[-+ 0#]*)(?<width>\d*)(?:\.(?<precision>\d+))?(?<type>.)",
        RegexOptions.Singleline
    )]
    private static partial Regex PercentField();

    [GeneratedRegex(
        @"^(?:(?<fill>.)?(?<align>[<>^=]))?(?<sign>[-+ ])?(?<zero>0)?(?<width>\d+)?"
            + @"(?<comma>[,_])?(?:\.(?<precision>\d+))?(?<type>[a-zA-Z%])?$",
        RegexOptions.Singleline
    )]
    private static partial Regex Spec();

    public static string Percent(string format, IReadOnlyList<object?> values)
    {
        var output = new StringBuilder();
        var used = 0;
        var i = 0;
        while (i < format.Length)
        {
            if (format[i] != '%')
            {
                output.Append(format[i++]);
                continue;
            }
            var field = PercentField().Match(format, i);
            if (!field.Success)
                throw new JinjaException("a format that ends in %");
            i += field.Length;
            RenderCost.Spend(field.Length);
            var type = field.Groups["type"].Value[0];
            if (type == '%')
            {
                output.Append('%');
                continue;
            }
            var value =
                field.Groups["key"].Success ? Named(values, field.Groups["key"].Value)
                : used < values.Count ? values[used++]
                : throw new JinjaException("too few values for the format");
            var flags = field.Groups["flags"].Value;
            var text = Percent(type, value, flags, Number(field.Groups["precision"]));
            RenderCost.Fit((long)output.Length + text.Length);
            output.Append(
                Pad(
                    text,
                    Number(field.Groups["width"]) ?? 0,
                    flags.Contains('0') && type is not ('s' or 'r') ? '0' : ' ',
                    flags.Contains('-') ? '<'
                        : flags.Contains('0') ? '='
                        : '>'
                )
            );
        }
        if (used < values.Count && values is not [DictValue])
            throw new JinjaException("too many values for the format");
        return output.ToString();
    }

    private static object? Named(IReadOnlyList<object?> values, string key) =>
        values is [DictValue dict] && dict.TryGetValue(key, out var value)
            ? value
            : throw new JinjaException($"no '{key}' for the format");

    private static string Percent(char type, object? value, string flags, int? precision) =>
        type switch
        {
            's' => Cut(Values.Print(value), precision),
            'r' => Cut(Values.Repr(value), precision),
            'd' or 'i' or 'u' => Signed(value is double real ? Math.Truncate(real) : Values.Whole(value), flags, "F0"),
            'x' or 'X' or 'o' => Whole(value, type),
            'f' or 'F' or 'e' or 'E' or 'g' => Signed(Values.Real(value), flags, Real(type, precision ?? 6)),
            _ => throw new JinjaException($"the format %{type} is not supported"),
        };

    public static string Brace(object? value, string spec)
    {
        if (spec.Length == 0)
            return Values.Print(value);
        var match = Spec().Match(spec);
        if (!match.Success)
            throw new JinjaException($"the format '{spec}' is not supported");
        string Group(string name) => match.Groups[name].Value;
        var (precision, width, type, comma) = (
            Number(match.Groups["precision"]),
            Number(match.Groups["width"]) ?? 0,
            Group("type"),
            Group("comma")
        );
        var number = value is bool or long or double && type != "s";
        var text = (value, type) switch
        {
            (_, "%") => Signed(
                Values.Real(value) * 100,
                Group("sign"),
                (comma.Length > 0 ? "N" : "F") + (precision ?? 6)
            ) + "%",
            (double or bool or long, "f" or "F") => Signed(
                Values.Real(value),
                Group("sign"),
                (comma.Length > 0 ? "N" : "F") + (precision ?? 6)
            ),
            (double or bool or long, "e" or "E" or "g") => Signed(
                Values.Real(value),
                Group("sign"),
                Real(type[0], precision ?? 6)
            ),
            (bool or long, "x" or "X" or "o" or "b") => Whole(value, type[0]),
            (long, "" or "d") or (bool, "d") => Signed(
                Values.Whole(value),
                Group("sign"),
                comma.Length > 0 ? "N0" : "F0"
            ),
            (double real, "") when precision is null && comma.Length == 0 => (
                real >= 0 && Group("sign") is "+" or " " ? Group("sign") : ""
            ) + Values.Float(real),
            (not double and not long, "" or "s") => Cut(Values.Print(value), precision),
            _ => throw new JinjaException($"the format '{spec}' for {Values.TypeName(value)} is not supported"),
        };
        if (comma == "_")
            text = text.Replace(',', '_');
        var zero = Group("zero").Length > 0 && Group("align").Length == 0;
        return Pad(
            text,
            width,
            zero ? '0'
                : Group("fill") is [var fill] ? fill
                : ' ',
            Group("align") is [var align] ? align
                : zero ? '='
                : number ? '>'
                : '<'
        );
    }

    /// <summary>Fills a text up to a width; <c>=</c> fills between a number's sign and its digits.</summary>
    public static string Pad(string text, long width, char fill, char align)
    {
        var missing = Math.Max(0, width) - text.EnumerateRunes().Count();
        if (width > Widest)
            throw new JinjaException($"a width over {Widest}");
        if (missing <= 0)
            return text;
        var (filler, left) = (new string(fill, (int)missing), (int)missing / 2);
        return align switch
        {
            '<' => text + filler,
            '^' => filler[..left] + text + filler[left..],
            '=' when text is ['-' or '+' or ' ', ..] => text[0] + filler + text[1..],
            _ => filler + text,
        };
    }

    private static int? Number(Group group) =>
        !group.Success || group.Length == 0 ? null
        : int.TryParse(group.ValueSpan, out var number) && number <= Widest ? number
        : throw new JinjaException($"a width over {Widest}");

    private static string Cut(string text, int? most) =>
        most is { } count ? string.Concat(text.EnumerateRunes().Take(count)) : text;

    private static string Signed(object number, string flags, string format)
    {
        var text = ((IFormattable)number).ToString(format, CultureInfo.InvariantCulture);
        if (format[0] is 'e' or 'E')
            text = ExponentZeros().Replace(text, "$1");
        return text[0] == '-' ? text
            : flags.Contains('+') ? "+" + text
            : flags.Contains(' ') ? " " + text
            : text;
    }

    [GeneratedRegex(@"([eE][-+])0(?=\d\d)")]
    private static partial Regex ExponentZeros();

    private static string Real(char type, int precision) =>
        type is 'g'
            ? throw new JinjaException("the format g is not supported")
            : $"{(type == 'F' ? 'f' : type)}{precision}";

    private static string Whole(object? value, char type)
    {
        var whole = Values.Whole(value);
        var digits = type switch
        {
            'x' or 'X' => Math.Abs(whole).ToString(type == 'x' ? "x" : "X", CultureInfo.InvariantCulture),
            'o' => Convert.ToString(Math.Abs(whole), 8),
            _ => Convert.ToString(Math.Abs(whole), 2),
        };
        return whole < 0 ? "-" + digits : digits;
    }
}
