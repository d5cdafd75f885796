using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Trainer.Data.Formats;

/// <summary>
/// Parses the JSON of rows. A tree of nodes is made when it is asked for, and throws then what a row's parse should:
/// for a key that comes twice, for half of a surrogate pair. Here all of it is found at once.
/// </summary>
internal static class RowJson
{
    /// <summary>Most values and keys of a row; a tree of them takes some 100 bytes each.</summary>
    public const int MostValues = 1 << 22;

    private static readonly JsonDocumentOptions strict = new() { AllowDuplicateProperties = false };

    /// <exception cref="JsonException">The text is not JSON, or more than a row may be.</exception>
    public static JsonNode? Parse(ReadOnlySpan<byte> text)
    {
        StrictJson.Check(text, MostValues);
        return JsonNode.Parse(text, documentOptions: strict);
    }

    /// <inheritdoc cref="Parse(ReadOnlySpan{byte})"/>
    public static JsonNode? Parse(string text) => Parse(Encoding.UTF8.GetBytes(text));
}
