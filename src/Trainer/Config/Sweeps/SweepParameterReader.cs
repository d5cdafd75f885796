using System.Text.Json;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>Reads the <see cref="SweepParameters"/> of a sweep file.</summary>
internal static class SweepParameterReader
{
    /// <summary>For a <see cref="ConfigReader"/>.</summary>
    public static IReadOnlyDictionary<Type, ValueReader> Readers { get; } =
        new Dictionary<Type, ValueReader> { [typeof(SweepParameters)] = new("an object of settings", All) };

    private static SweepParameters? All(ref Utf8JsonReader reader, SettingContext parameters)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
            return null;
        var list = new List<SweepParameter>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var name = reader.GetString()!;
            var parameter = parameters.Of(name);
            var setting = Setting.Find(name);
            var refusal = Refusal(name, setting, list);
            if (refusal is var (message, code))
                parameter.Wrong(ref reader, message, code);
            reader.Read();
            if (refusal is not null)
                reader.Skip();
            else if (One(ref reader, new(name, setting!, parameter)) is { } read)
                list.Add(read);
        }
        return new(list);
    }

    /// <summary>Why a setting cannot be swept; null when it can.</summary>
    private static (string Message, string Code)? Refusal(string name, Setting? setting, List<SweepParameter> before) =>
        setting is null ? ($"is not a setting{NearestName.Hint(name, Setting.Names)}", "MEMOPT0002")
        : before.Any(other => other.Setting == name) ? ("is written twice", "MEMOPT0002")
        : name is "tracking.store" or "tracking.artifacts"
            ? ("cannot be swept: the runs of a sweep are in one place", "MEMOPT0006")
        : null;

    private static SweepParameter? One(ref Utf8JsonReader reader, SweptSetting swept)
    {
        switch (reader.TokenType)
        {
            case JsonTokenType.StartArray:
                return Values(ref reader, swept);
            case JsonTokenType.StartObject:
                return new SweepRangeReader(swept).Read(ref reader);
            default:
                swept.Context.Wrong(
                    ref reader,
                    "must be a list of values, or {\"min\": …, \"max\": …}, found " + JsonValues.Found(ref reader),
                    "MEMOPT0003"
                );
                reader.Skip();
                return null;
        }
    }

    private static SweepParameter Values(ref Utf8JsonReader reader, SweptSetting swept)
    {
        var start = (int)reader.TokenStartIndex;
        var values = new List<string>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
            values.Add(swept.Try(ref reader));
        if (values.Count == 0)
            swept.Context.Wrong(start, "must have at least one value", "MEMOPT0003");
        return new(swept.Name, [.. values.Distinct()]);
    }
}
