using System.Text.Json;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config.Reading;

/// <summary>How the values of settings are read, by the type that a setting declares.</summary>
internal static class ValueReaders
{
    private static readonly Dictionary<Type, ValueReader> readers = new()
    {
        [typeof(string)] = new("a string that is not empty", (ref reader, _) => JsonValues.Text(ref reader)),
        [typeof(bool)] = new("true or false", Flag),
        [typeof(int)] = new("a whole number", WholeNumber),
        [typeof(double)] = new("a number", Number),
        [typeof(Targets)] = new("\"all-linear\" or a list of module names", ModuleNames),
        [typeof(IReadOnlyList<double>)] = new(
            "a list of numbers",
            (ref reader, _) => JsonValues.List<double>(ref reader)
        ),
        [typeof(DataSources)] = new(
            "a source, or a list of sources: \"train.jsonl\" or {\"source\": …, \"weight\": …, "
                + "\"columns\": {…}, \"format\": …}",
            DataSourceReader.Read
        ),
        [typeof(IReadOnlyDictionary<string, int>)] = new(
            "an object",
            (ref reader, _) => JsonValues.Map<int>(ref reader)
        ),
        [typeof(IReadOnlyDictionary<string, double>)] = new(
            "an object",
            (ref reader, _) => JsonValues.Map<double>(ref reader)
        ),
        [typeof(IReadOnlyDictionary<string, string>)] = new(
            "an object",
            (ref reader, _) => JsonValues.Map<string>(ref reader)
        ),
    };

    public static ValueReader For(Type type) => type.IsEnum ? Enumeration(type) : readers[type];

    private static object? Flag(ref Utf8JsonReader reader, SettingContext setting) =>
        reader.TokenType is JsonTokenType.True or JsonTokenType.False ? reader.GetBoolean() : null;

    private static object? WholeNumber(ref Utf8JsonReader reader, SettingContext setting) =>
        reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out var number) ? number : null;

    private static object? Number(ref Utf8JsonReader reader, SettingContext setting) =>
        reader.TokenType == JsonTokenType.Number ? reader.GetDouble() : null;

    private static ValueReader Enumeration(Type type) =>
        new(
            EnumNames.OneOf(type),
            (ref reader, _) =>
                reader.TokenType == JsonTokenType.String
                    ? EnumNames.Values(type).GetValueOrDefault(reader.GetString()!)
                    : null
        );

    private static Targets? ModuleNames(ref Utf8JsonReader reader, SettingContext setting)
    {
        if (reader.TokenType == JsonTokenType.String)
            return reader.GetString() == "all-linear" ? Targets.AllLinear : null;
        return
            JsonValues.List<string>(ref reader) is { Count: > 0 } names
            && names.All(name => !string.IsNullOrEmpty(name))
            ? new(names)
            : null;
    }
}
