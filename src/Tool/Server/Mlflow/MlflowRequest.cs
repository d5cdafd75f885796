using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>A message to the server: the JSON of a body, or the query of an address. As in protobuf's JSON, integers
/// may be numbers or strings, numbers that JSON has no word for are strings, null is absence, and what is not known is
/// passed over. Of a text that stands several times in a query the first counts.
/// </summary>
internal sealed class MlflowRequest
{
    private readonly JsonObject fields;
    private readonly bool isQuery;

    public MlflowRequest(JsonObject fields) => this.fields = fields;

    /// <summary>The query of an address; a name that stands several times is a list.</summary>
    public MlflowRequest(IQueryCollection query) =>
        (fields, isQuery) = (
            new(
                query.Select(item =>
                    KeyValuePair.Create(
                        item.Key,
                        item.Value.Count == 1
                            ? (JsonNode?)item.Value[0]
                            : new JsonArray([.. item.Value.Select(value => (JsonNode?)value)])
                    )
                )
            ),
            true
        );

    /// <summary>Reads a body; none is an empty message.</summary>
    public static MlflowRequest Parse(ReadOnlyMemory<byte> body)
    {
        if (body.Length == 0)
            return new(new JsonObject());
        try
        {
            var message = JsonNode.Parse(
                body.Span,
                documentOptions: new JsonDocumentOptions { AllowDuplicateProperties = false }
            );
            Read(message);
            return new(
                message as JsonObject ?? throw new MlflowFault(MlflowFault.Invalid, "The body is JSON, but no object.")
            );
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new MlflowFault(MlflowFault.Invalid, $"The body is no JSON: {e.Message}");
        }

        // .NET looks at a text only when it is asked for: half a surrogate pair is found then.
        static void Read(JsonNode? node)
        {
            if (node is JsonObject message)
            {
                foreach (var (_, value) in message)
                    Read(value);
            }
            else if (node is JsonArray list)
            {
                foreach (var item in list)
                    Read(item);
            }
            else if (node?.GetValueKind() == JsonValueKind.String)
            {
                node.GetValue<string>();
            }
        }
    }

    /// <summary>The run it is about, under either of its names; to protobuf an empty text is none.</summary>
    public string RunId =>
        Text("run_id") is { Length: > 0 } id ? id
        : Text("run_uuid") is { Length: > 0 } old ? old
        : throw Absent("run_id");

    /// <summary>A text. Identifiers that are numbers are often sent so; any other number is a mistake of the
    /// caller.</summary>
    public string? Text(string name) => Scalar(name, name.EndsWith("_id", StringComparison.Ordinal), "a text");

    private string? Scalar(string name, bool numbers, string expected) =>
        fields[name] switch
        {
            null => null,
            JsonValue value when value.GetValueKind() == JsonValueKind.String => value.GetValue<string>(),
            JsonValue value when numbers && value.GetValueKind() == JsonValueKind.Number => value.ToJsonString(),
            JsonArray { Count: > 0 } several when isQuery => several[0]!.GetValue<string>(),
            _ => throw Wrong(name, expected),
        };

    public string Required(string name) => Text(name) is { Length: > 0 } text ? text : throw Absent(name);

    public long? Integer(string name)
    {
        if (Scalar(name, true, "an integer of 64 bits") is not { } text)
            return null;
        if (long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number))
            return number;
        // 12.0 and 1e3 are integers to protobuf, too.
        return
            decimal.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var real)
            && decimal.IsInteger(real)
            && real is >= long.MinValue and <= long.MaxValue
            ? (long)real
            : throw Wrong(name, "an integer of 64 bits");
    }

    public int Count(string name, int otherwise, int most) =>
        Integer(name) is not { } number ? otherwise
        : number >= 1 && number <= most ? (int)number
        : throw new MlflowFault(
            MlflowFault.Invalid,
            $"Invalid value {number} for parameter '{name}': it must be from 1 to {most}."
        );

    public double Number(string name) =>
        Scalar(name, true, "a number of 64 bits") switch
        {
            null => throw Absent(name),
            "NaN" => double.NaN,
            "Infinity" => double.PositiveInfinity,
            "-Infinity" => double.NegativeInfinity,
            var text when double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) =>
                number,
            _ => throw Wrong(name, "a number of 64 bits"),
        };

    public bool Has(string name) => fields[name] is not null;

    public IReadOnlyList<string> Texts(string name) =>
        fields[name] switch
        {
            null => [],
            JsonArray array =>
            [
                .. array.Select(item =>
                    item is JsonValue value && value.GetValueKind() is JsonValueKind.String or JsonValueKind.Number
                        ? value.ToString()
                        : throw Wrong(name, "a list of texts")
                ),
            ],
            JsonValue => [Text(name)!],
            _ => throw Wrong(name, "a list of texts"),
        };

    public IReadOnlyList<MlflowRequest> Messages(string name) =>
        fields[name] switch
        {
            null => [],
            JsonArray array =>
            [
                .. array.Select(item =>
                    item is JsonObject message ? new MlflowRequest(message) : throw Wrong(name, "a list of objects")
                ),
            ],
            _ => throw Wrong(name, "a list of objects"),
        };

    public MlflowRequest Message(string name) =>
        fields[name] switch
        {
            null => throw Absent(name),
            JsonObject message => new(message),
            _ => throw Wrong(name, "an object"),
        };

    /// <summary>One of several words, or its number.</summary>
    public string? Choice(string name) => Scalar(name, true, "a word");

    /// <summary>Whether deleted things are asked for: false, true, or null for both.</summary>
    public bool? Deleted(string name) =>
        Choice(name)?.ToUpperInvariant() switch
        {
            null or "" or "ACTIVE_ONLY" or "1" => false,
            "DELETED_ONLY" or "2" => true,
            "ALL" or "3" => null,
            _ => throw Wrong(name, "ACTIVE_ONLY, DELETED_ONLY or ALL"),
        };

    private static MlflowFault Absent(string name) =>
        new(MlflowFault.Invalid, $"Missing value for required parameter '{name}'.");

    private MlflowFault Wrong(string name, string expected)
    {
        var found = fields[name]!.ToJsonString();
        return new(
            MlflowFault.Invalid,
            $"Invalid value {(found.Length > 200 ? found[..200] + "…" : found)} for parameter '{name}': expected "
                + $"{expected}."
        );
    }
}
