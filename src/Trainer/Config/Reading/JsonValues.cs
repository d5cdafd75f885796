using System.Text;
using System.Text.Json;

namespace Memopt.Trainer.Config.Reading;

/// <summary>JSON values that several settings have.</summary>
internal static class JsonValues
{
    private static readonly JsonSerializerOptions strict = new() { RespectNullableAnnotations = true };

    /// <summary>The value that the reader is at, as a message names it.</summary>
    public static string Found(ref Utf8JsonReader reader) =>
        reader.TokenType switch
        {
            JsonTokenType.StartObject => "an object",
            JsonTokenType.StartArray => "a list",
            JsonTokenType.String => $"\"{reader.GetString()}\"",
            _ => Encoding.UTF8.GetString(reader.ValueSpan),
        };

    /// <summary>A string that is not empty, or null.</summary>
    public static string? Text(ref Utf8JsonReader reader) =>
        reader.TokenType == JsonTokenType.String && reader.GetString() is { Length: > 0 } text ? text : null;

    /// <summary>A whole list, or null with the reader where it was.</summary>
    public static List<T>? List<T>(ref Utf8JsonReader reader) =>
        reader.TokenType == JsonTokenType.StartArray ? Parse<List<T>>(reader, ref reader) : null;

    /// <summary>A whole object, or null with the reader where it was.</summary>
    public static Dictionary<string, T>? Map<T>(ref Utf8JsonReader reader) =>
        reader.TokenType == JsonTokenType.StartObject ? Parse<Dictionary<string, T>>(reader, ref reader) : null;

    private static T? Parse<T>(Utf8JsonReader copy, ref Utf8JsonReader reader)
        where T : class
    {
        try
        {
            var value = JsonSerializer.Deserialize<T>(ref copy, strict);
            reader.Skip();
            return value;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return null;
        }
    }
}
