using System.Globalization;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Views;

/// <summary>Numbers as people read them; JSON has them raw.</summary>
internal static class Human
{
    /// <summary>A metric's value in the unit that its name tells: bytes, seconds, something per second.</summary>
    public static string Metric(string name, double value) =>
        !double.IsFinite(value) ? value.ToString(CultureInfo.InvariantCulture)
        : name.EndsWith("per_second", StringComparison.Ordinal) ? $"{value:N0}/s"
        : name.EndsWith("bytes", StringComparison.Ordinal) ? LedgerTable.Size((long)value)
        : name.EndsWith("seconds", StringComparison.Ordinal) ? Duration(TimeSpan.FromSeconds(value))
        : Number(value);

    /// <summary>Five digits; what is very small or very large as 2e-4.</summary>
    public static string Number(double value) =>
        value == Math.Truncate(value) && Math.Abs(value) < 1e15 ? value.ToString("N0", CultureInfo.InvariantCulture)
        : Math.Abs(value) is < 1e-3 or >= 1e6 ? value.ToString("0.####e0", CultureInfo.InvariantCulture)
        : value.ToString("G5", CultureInfo.InvariantCulture);

    /// <summary>The two largest units of a time.</summary>
    public static string Duration(TimeSpan time) =>
        time.TotalSeconds switch
        {
            < 0 => $"-{Duration(-time)}",
            < 1 => $"{time.TotalMilliseconds.ToString("0.#", CultureInfo.InvariantCulture)} ms",
            < 60 => $"{time.TotalSeconds.ToString("0.#", CultureInfo.InvariantCulture)} s",
            < 3600 => $"{time.Minutes} min {time.Seconds} s",
            < 86400 => $"{time.Hours} h {time.Minutes} min",
            _ => $"{time.Days} d {time.Hours} h",
        };

    /// <summary>A setting's value on one line: a small number as 2e-4, a long text cut.</summary>
    public static string Setting(string value)
    {
        value = OneLine(value);
        if (
            double.TryParse(
                value,
                NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent,
                CultureInfo.InvariantCulture,
                out var number
            ) && number is > 0 and < 1e-3
        )
            return Number(number);
        const int most = 80;
        return value.Length <= most ? value : $"{value[..most]}…";
    }

    /// <summary>A text without its line breaks and the blanks around them: a list in a recorded config is written over
    /// several lines.</summary>
    public static string OneLine(string text) => string.Concat(text.Split('\n').Select(line => line.Trim()));

    /// <summary>A JSON value as a run's parameters spell it: a string without its quotes.</summary>
    public static string Unquoted(string json) =>
        JsonNode.Parse(json) is JsonValue value && value.TryGetValue(out string? text) ? text : json;
}
