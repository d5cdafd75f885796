using System.Text.Json;
using Memopt.Hub;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Reads <see cref="DataSources"/>.</summary>
internal static class DataSourceReader
{
    private static readonly string[] keys = ["source", "weight", "columns", "format"];
    private static readonly IReadOnlyDictionary<string, object> formats = EnumNames.Values(typeof(DataFormat));

    /// <summary>One source or a list of them; null, or a problem and null, when it is something else.</summary>
    public static DataSources? Read(ref Utf8JsonReader reader, SettingContext setting)
    {
        var list = new List<DataSource>();
        if (reader.TokenType != JsonTokenType.StartArray)
            return Source(ref reader, setting) is { } one ? new([one]) : null;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (Source(ref reader, setting) is not { } source)
            {
                setting.Wrong(
                    ref reader,
                    $"each source must be a string or an object, found {JsonValues.Found(ref reader)}",
                    "MEMOPT0003"
                );
                reader.Skip();
                source = new("");
            }
            list.Add(source);
        }
        return list.Count > 0 ? new(list) : null;
    }

    private static DataSource? Source(ref Utf8JsonReader reader, SettingContext setting) =>
        reader.TokenType == JsonTokenType.StartObject ? FromObject(ref reader, setting)
        : JsonValues.Text(ref reader) is { } text ? DataSource.Parse(text)
        : null;

    private static DataSource FromObject(ref Utf8JsonReader reader, SettingContext setting)
    {
        var source = new DataSource("");
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var key = reader.GetString()!;
            reader.Read();
            if (With(source, key, ref reader) is { } more)
            {
                source = more;
                continue;
            }
            if (Wanted(key) is { } wanted)
                setting
                    .Of(key)
                    .Wrong(ref reader, $"must be {wanted}, found {JsonValues.Found(ref reader)}", "MEMOPT0003");
            else
                setting
                    .Of(key)
                    .Wrong(ref reader, $"is not a setting of a source{NearestName.Hint(key, keys)}", "MEMOPT0002");
            reader.Skip();
        }
        if (source.Source.Length == 0)
            setting.Wrong(ref reader, "a source is an object without \"source\"", "MEMOPT0003");
        return source;
    }

    /// <summary>The source with the value that the reader is at, or null when it is no value of this key.</summary>
    private static DataSource? With(DataSource source, string key, ref Utf8JsonReader reader)
    {
        switch (key)
        {
            case "source" when JsonValues.Text(ref reader) is { } text:
                var named = DataSource.Parse(text);
                return source with { Source = named.Source, Samples = named.Samples };
            case "weight"
                when reader.TokenType == JsonTokenType.Number && reader.GetDouble() is > 0 and <= 1000 and var weight:
                return source with { Weight = weight };
            case "columns"
                when JsonValues.Map<string>(ref reader) is { } columns
                    && columns.Values.All(column => !string.IsNullOrEmpty(column)):
                return source with { Columns = columns };
            case "format"
                when reader.TokenType == JsonTokenType.String
                    && formats.TryGetValue(reader.GetString()!, out var format):
                return source with { Format = (DataFormat)format };
            default:
                return null;
        }
    }

    private static string? Wanted(string key) =>
        key switch
        {
            "source" => "a string that is not empty",
            "weight" => "a number above 0, at most 1000",
            "columns" => "an object of column names",
            "format" => EnumNames.OneOf(typeof(DataFormat)),
            _ => null,
        };
}
