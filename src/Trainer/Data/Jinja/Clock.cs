using System.Text;

namespace Memopt.Trainer.Data.Jinja;

/// <summary>Python's <c>strftime</c> in the C locale.</summary>
internal static class Clock
{
    public static string Format(DateTimeOffset now, string format)
    {
        var output = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || ++i >= format.Length)
            {
                output.Append(format[Math.Min(i, format.Length - 1)]);
                continue;
            }
            var unpadded = format[i] == '-' && i + 1 < format.Length;
            var field = format[unpadded ? ++i : i] switch
            {
                'Y' => now.ToString("yyyy"),
                'y' => now.ToString("yy"),
                'm' => now.ToString("MM"),
                'd' => now.ToString("dd"),
                'e' => now.Day.ToString().PadLeft(2),
                'H' => now.ToString("HH"),
                'I' => now.ToString("hh"),
                'M' => now.ToString("mm"),
                'S' => now.ToString("ss"),
                'p' => now.Hour < 12 ? "AM" : "PM",
                'B' => now.ToString("MMMM"),
                'b' or 'h' => now.ToString("MMM"),
                'A' => now.ToString("dddd"),
                'a' => now.ToString("ddd"),
                'j' => now.DayOfYear.ToString("000"),
                'F' => now.ToString("yyyy-MM-dd"),
                'T' => now.ToString("HH:mm:ss"),
                'z' => now.ToString("zzz").Replace(":", ""),
                '%' => "%",
                var other => throw new JinjaException($"the time format %{other} is not supported"),
            };
            output.Append(unpadded ? field.TrimStart('0') is { Length: > 0 } short1 ? short1 : "0" : field);
        }
        return output.ToString();
    }
}
