using System.Text.Json;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>Reads a range of a sweep file: <c>{"min", "max", "log", "points"}</c>.</summary>
internal sealed class SweepRangeReader(SweptSetting swept)
{
    private static readonly string[] keys = ["min", "max", "log", "points"];

    private double? min;
    private double? max;
    private bool log;
    private int? points;

    /// <summary>The range, or the values of a range with points; null and a problem when it is none.</summary>
    public SweepParameter? Read(ref Utf8JsonReader reader)
    {
        var start = (int)reader.TokenStartIndex;
        var before = swept.Context.Problems.Count;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
            Part(ref reader);
        if (swept.Context.Problems.Count > before)
            return null;
        if (Fault() is { } fault)
        {
            swept.Context.Wrong(start, fault, "MEMOPT0003");
            return null;
        }
        var range = new SweepRange(min!.Value, max!.Value, log, SettingType == typeof(int));
        return points is { } count ? new(swept.Name, Points(range, count)) : new(swept.Name, [], range);
    }

    private Type SettingType =>
        Nullable.GetUnderlyingType(swept.Setting.Property.PropertyType) ?? swept.Setting.Property.PropertyType;

    private void Part(ref Utf8JsonReader reader)
    {
        var (key, start) = (reader.GetString()!, (int)reader.TokenStartIndex);
        reader.Read();
        if (Take(key, ref reader))
            return;
        var part = swept.Context.Of(key);
        if (Wanted(key) is { } wanted)
            part.Wrong(ref reader, $"must be {wanted}, found {JsonValues.Found(ref reader)}", "MEMOPT0003");
        else
            part.Wrong(start, $"is not a part of a range{NearestName.Hint(key, keys)}", "MEMOPT0002");
        reader.Skip();
    }

    /// <summary>Takes the value that the reader is at; false when it is no value of this key.</summary>
    private bool Take(string key, ref Utf8JsonReader reader)
    {
        switch (key)
        {
            case "min" when reader.TokenType == JsonTokenType.Number:
                min = reader.GetDouble();
                swept.Try(ref reader);
                return true;
            case "max" when reader.TokenType == JsonTokenType.Number:
                max = reader.GetDouble();
                swept.Try(ref reader);
                return true;
            case "log" when reader.TokenType is JsonTokenType.True or JsonTokenType.False:
                log = reader.GetBoolean();
                return true;
            case "points"
                when reader.TokenType == JsonTokenType.Number
                    && reader.TryGetInt32(out var number)
                    && number is >= 2 and <= Sweep.Most:
                points = number;
                return true;
            default:
                return false;
        }
    }

    private static string? Wanted(string key) =>
        key switch
        {
            "min" or "max" => "a number",
            "log" => "true or false",
            "points" => "a whole number from 2",
            _ => null,
        };

    private string? Fault() =>
        SettingType != typeof(int) && SettingType != typeof(double) ? "takes a list of values: a range is for numbers"
        : min is null || max is null || min >= max ? "a range needs min and a greater max"
        : log && min <= 0 ? "a logarithmic range needs a min above 0"
        : null;

    /// <summary>Values at equal distances in a range, from its least to its greatest.</summary>
    private static IReadOnlyList<string> Points(SweepRange range, int count) =>
        [.. Enumerable.Range(0, count).Select(point => range.At(point / (count - 1.0))).Distinct()];
}
