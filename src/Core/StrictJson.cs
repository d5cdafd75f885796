using System.Text.Json;
using System.Text.Unicode;

namespace Memopt.Core;

/// <summary>What JSON of strangers is checked for before it is parsed.</summary>
internal static class StrictJson
{
    /// <summary>Finds half of a surrogate pair, and bytes that are no UTF-8, in the texts and names of a JSON text. A
    /// document that has one parses, and throws an <see cref="InvalidOperationException"/> when the text is asked for.
    /// </summary>
    /// <param name="text">JSON in UTF-8.</param>
    /// <param name="mostValues">Most values and names.</param>
    /// <exception cref="JsonException">The text is not JSON, or has such a part, or too many values.</exception>
    public static void Check(ReadOnlySpan<byte> text, int mostValues = int.MaxValue)
    {
        if (!Utf8.IsValid(text))
            throw new JsonException("bytes that are no UTF-8");
        var reader = new Utf8JsonReader(text);
        var (values, key) = (0, "");
        try
        {
            while (reader.Read())
            {
                if (++values > mostValues)
                    throw new JsonException($"more than {mostValues:N0} values");
                if (reader.TokenType == JsonTokenType.PropertyName && reader.CurrentDepth == 1)
                    key = reader.GetString();
                else if (
                    reader.TokenType is JsonTokenType.String or JsonTokenType.PropertyName
                    && reader.ValueSpan.IndexOf("\\u"u8) >= 0
                )
                    reader.GetString(); // only an escape can be half of a pair; rows are read here
            }
        }
        catch (InvalidOperationException error)
        {
            throw new JsonException($"half of a surrogate pair{(key is "" ? "" : $", in {key}")}", error);
        }
    }
}
