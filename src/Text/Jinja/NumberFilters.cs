using System.Globalization;

namespace Memopt.Text.Jinja;

/// <summary>Filters of numbers.</summary>
internal static class NumberFilters
{
    public static Dictionary<string, Filter> Table { get; } =
        new()
        {
            ["abs"] = call => call.Value is double real ? Math.Abs(real) : (object)Math.Abs(Values.Whole(call.Value)),
            ["float"] = Float,
            ["int"] = call => ToInteger(call.Value, call.Whole(1, "base", 10)) ?? call.Argument(0, "default", 0L),
            ["round"] = Round,
        };

    private static object? Float(FilterCall call) =>
        call.Value is bool or long or double ? Values.Real(call.Value)
        : call.Value is string digits && double.TryParse(digits, NumberStyles.Float, null, out var real) ? real
        : call.Argument(0, "default", 0.0);

    private static object? Round(FilterCall call)
    {
        var method = Values.Print(call.Argument(1, "method", "common"));
        if (call.Value is bool or long && call.Argument(0, "precision", 0L) is >= 0L && method == "common")
            return Values.Whole(call.Value);
        var power = Math.Pow(10, call.Whole(0, "precision", 0));
        var scaled = Values.Real(call.Value) * power;
        var rounded = method switch
        {
            "ceil" => Math.Ceiling(scaled),
            "floor" => Math.Floor(scaled),
            _ => Math.Round(scaled, MidpointRounding.ToEven),
        };
        return rounded / power;
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
}
