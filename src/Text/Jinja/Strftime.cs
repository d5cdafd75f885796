using System.Globalization;
using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>Python's <c>strftime</c> in the C locale.</summary>
internal static class Strftime
{
    public static string Format(DateTimeOffset now, string format)
    {
        var output = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 >= format.Length)
            {
                output.Append(format[i]);
                continue;
            }
            RenderCost.Fit(output.Length);
            RenderCost.Spend();
            var unpadded = format[++i] == '-' && i + 1 < format.Length;
            var field = Field(now, format[unpadded ? ++i : i]);
            output.Append(
                !unpadded ? field
                : field.TrimStart('0', ' ') is { Length: > 0 } trimmed ? trimmed
                : "0"
            );
        }
        return output.ToString();
    }

    private static string Field(DateTimeOffset now, char code)
    {
        string Net(string format) => now.ToString(format, CultureInfo.InvariantCulture);
        string Two(int number) => number.ToString("00", CultureInfo.InvariantCulture);
        var weekday = (int)now.DayOfWeek;
        return code switch
        {
            'Y' => Net("yyyy"),
            'y' => Net("yy"),
            'C' => Two(now.Year / 100),
            'm' => Net("MM"),
            'd' => Net("dd"),
            'e' => now.Day.ToString(CultureInfo.InvariantCulture).PadLeft(2),
            'H' => Net("HH"),
            'I' => Net("hh"),
            'k' => now.Hour.ToString(CultureInfo.InvariantCulture).PadLeft(2),
            'l' => ((now.Hour + 11) % 12 + 1).ToString(CultureInfo.InvariantCulture).PadLeft(2),
            'M' => Net("mm"),
            'S' => Net("ss"),
            'f' => Net("ffffff"),
            'p' => now.Hour < 12 ? "AM" : "PM",
            'B' => Net("MMMM"),
            'b' or 'h' => Net("MMM"),
            'A' => Net("dddd"),
            'a' => Net("ddd"),
            'j' => now.DayOfYear.ToString("000", CultureInfo.InvariantCulture),
            'w' => weekday.ToString(CultureInfo.InvariantCulture),
            'u' => (weekday == 0 ? 7 : weekday).ToString(CultureInfo.InvariantCulture),
            'U' => Two((now.DayOfYear + 6 - weekday) / 7),
            'W' => Two((now.DayOfYear + 6 - (weekday + 6) % 7) / 7),
            'V' => Two(ISOWeek.GetWeekOfYear(now.DateTime)),
            'G' => ISOWeek.GetYear(now.DateTime).ToString("0000", CultureInfo.InvariantCulture),
            'D' or 'x' => Net("MM/dd/yy"),
            'F' => Net("yyyy-MM-dd"),
            'T' or 'X' => Net("HH:mm:ss"),
            'R' => Net("HH:mm"),
            'r' => Net("hh:mm:ss tt"),
            'c' => $"{Net("ddd MMM")} {now.Day.ToString().PadLeft(2)} {Net("HH:mm:ss yyyy")}",
            'n' => "\n",
            't' => "\t",
            'z' or 'Z' => "", // Python's now() has no time zone
            '%' => "%",
            _ => throw new JinjaException($"the time format %{code} is not supported"),
        };
    }
}
