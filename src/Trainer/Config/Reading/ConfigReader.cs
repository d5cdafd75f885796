using System.Collections;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Binds JSON to a record by the record's own declarations, and collects what is wrong.</summary>
internal sealed class ConfigReader(ConfigProblems problems)
{
    /// <summary>Whether every setting is written, so that two that exclude each other are no
    /// contradiction.</summary>
    public bool Whole { get; init; }

    /// <summary>Readers of types that no setting of <see cref="RunConfig"/> has.</summary>
    public IReadOnlyDictionary<Type, ValueReader> Others { get; init; } = new Dictionary<Type, ValueReader>();

    /// <summary>The whole file, as far as it can be read.</summary>
    public T Read<T>(ConfigText text, T defaults)
        where T : notnull
    {
        var file = new SettingContext("", problems);
        if (text.EndOfUtf8() is { } end)
        {
            file.Wrong(end, "is not UTF-8 text from here on", "MEMOPT0001");
            return defaults;
        }
        var reader = text.Reader();
        try
        {
            reader.Read();
            defaults = (T)Record(ref reader, defaults, file);
            while (reader.Read()) { }
        }
        catch (JsonException e)
        {
            file.Wrong(text.Offset(e), $"not valid JSON: {e.Message.Split(" LineNumber")[0]}", "MEMOPT0001");
        }
        catch (InvalidOperationException e)
        {
            file.Wrong(ref reader, $"holds text that is not valid Unicode ({e.Message})", "MEMOPT0001");
        }
        return defaults;
    }

    /// <summary>One value by the type that its property declares, or null and a problem.</summary>
    public object? Value(ref Utf8JsonReader reader, PropertyInfo property, SettingContext setting)
    {
        if (reader.TokenType == JsonTokenType.Null && IsOptional(property))
            return null;
        var type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        var (wanted, read) = Others.GetValueOrDefault(type) ?? ValueReaders.For(type);
        var value = read(ref reader, setting);
        if (value is IDictionary map && map.Values.Cast<object?>().Any(each => each is null or <= 0 or <= 0.0))
            (value, wanted) = (null, "an object whose values are set and above 0");
        if (value is null)
        {
            setting.Wrong(ref reader, $"must be {wanted}, found {JsonValues.Found(ref reader)}", "MEMOPT0003");
            reader.Skip();
            return null;
        }
        if (property.GetCustomAttribute<RangeAttribute>() is { } range && !IsInside(range, Convert.ToDouble(value)))
        {
            setting.Wrong(
                ref reader,
                $"must be between {range.Minimum} and {range.Maximum}, found {value}",
                "MEMOPT0004"
            );
            return null;
        }
        return value;
    }

    private object Record(ref Utf8JsonReader reader, object defaults, SettingContext record)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            record.Wrong(ref reader, $"must be an object, found {JsonValues.Found(ref reader)}", "MEMOPT0003");
            reader.Skip();
            return defaults;
        }
        var copy = SettingProperties.Copy(defaults);
        var properties = SettingProperties.Of(defaults.GetType()).ToDictionary(SettingProperties.Key);
        var seen = new HashSet<string>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var name = reader.GetString()!;
            var setting = record.Of(name);
            if (!seen.Add(name))
                setting.Wrong(ref reader, "is written twice", "MEMOPT0002");
            if (properties.TryGetValue(name, out var property))
                Set(copy, property, ref reader, setting);
            else
                Unknown(properties.Keys, ref reader, setting);
        }
        if (!Whole && record.Path == "train" && seen.Contains("steps") && seen.Contains("epochs"))
            record.Of("steps").Wrong(ref reader, "and train.epochs are both written: keep one", "MEMOPT0006");
        return copy;
    }

    /// <summary>Reads the value behind a name into a record.</summary>
    private void Set(object record, PropertyInfo property, ref Utf8JsonReader reader, SettingContext setting)
    {
        reader.Read();
        var before = problems.Count;
        var value =
            record is RunConfig
                ? Record(ref reader, property.GetValue(record)!, setting)
                : Value(ref reader, property, setting);
        if (problems.Count == before || value is not null)
            property.SetValue(record, value);
    }

    /// <summary>Adds a problem for the name that the reader is at, and skips its value.</summary>
    private static void Unknown(IEnumerable<string> known, ref Utf8JsonReader reader, SettingContext setting)
    {
        var name = reader.GetString()!;
        // Editors look there for the schema.
        if (setting.Path != "$schema")
            setting.Wrong(
                ref reader,
                $"is not a setting{NearestName.Hint(name, known, Setting.Suggest(name)?.Split('=')[0])}",
                "MEMOPT0002"
            );
        reader.Read();
        reader.Skip();
    }

    private static bool IsOptional(PropertyInfo property) =>
        Nullable.GetUnderlyingType(property.PropertyType) is not null
        || new NullabilityInfoContext().Create(property).WriteState == NullabilityState.Nullable;

    private static bool IsInside(RangeAttribute range, double value) =>
        value >= Convert.ToDouble(range.Minimum) && value <= Convert.ToDouble(range.Maximum);
}
