using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>A value of a DeepSpeed file, with its place.</summary>
/// <param name="Path">Its names from the root, with dots; empty for the root.</param>
/// <param name="Name">Its own name, which may have dots in it.</param>
/// <param name="Offset">The byte at which its name begins.</param>
/// <param name="Json">The value.</param>
/// <param name="Children">The values of an object, in their order; empty for everything else.</param>
internal sealed record DeepSpeedNode(
    string Path,
    string Name,
    int Offset,
    JsonElement Json,
    IReadOnlyList<DeepSpeedNode> Children
)
{
    private const int Longest = 60;

    private static readonly JsonWriterOptions readable = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public bool IsObject => Json.ValueKind == JsonValueKind.Object;

    public bool IsNull => Json.ValueKind == JsonValueKind.Null;

    /// <summary>Whether the value is "auto", which leaves the choice to the program.</summary>
    public bool IsAuto => Text == "auto";

    /// <summary>The string; null when it is something else.</summary>
    public string? Text => Json.ValueKind == JsonValueKind.String ? Json.GetString() : null;

    /// <summary>The flag; null when it is something else.</summary>
    public bool? Flag => Json.ValueKind is JsonValueKind.True or JsonValueKind.False ? Json.GetBoolean() : null;

    /// <summary>The finite number; null when it is something else.</summary>
    public double? Number =>
        Json.ValueKind == JsonValueKind.Number && Json.GetDouble() is var number && double.IsFinite(number)
            ? number
            : null;

    /// <summary>The whole number, also where it is written as 1e3; null when it is something else.</summary>
    public int? Whole =>
        Number is { } number && number == Math.Floor(number) && Math.Abs(number) <= int.MaxValue ? (int)number : null;

    /// <summary>The number as a setting has it.</summary>
    public string Digits => Number!.Value.ToString("R", CultureInfo.InvariantCulture);

    /// <summary>The value on one line.</summary>
    public string Line
    {
        get
        {
            using var stream = new MemoryStream();
            using (var writer = new Utf8JsonWriter(stream, readable))
                Json.WriteTo(writer);
            return Encoding.UTF8.GetString(stream.ToArray());
        }
    }

    /// <summary>The value as a message quotes it.</summary>
    public string Short => Line is { Length: > Longest } line ? line[..Longest] + "…" : Line;

    /// <summary>The value that is called so; null when there is none, or it is null.</summary>
    /// <param name="path">Names from here, with dots.</param>
    public DeepSpeedNode? Find(string path)
    {
        var node = this;
        foreach (var name in path.Split('.'))
            node = node?.Children.FirstOrDefault(child => child.Name == name);
        return node is { IsNull: false } ? node : null;
    }
}
