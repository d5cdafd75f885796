using System.Globalization;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Trainer.Plan;

/// <summary>A config.json being read: collects what is wrong with it.</summary>
internal sealed class ConfigJson(string file, JsonElement root)
{
    private readonly List<Problem> problems = [];

    public string File => file;

    public JsonElement Root => root;

    public void Problem(string key, string message) => problems.Add(new(key, UserFault.Short(message), file));

    public bool Has(string key) => root.TryGetProperty(key, out _);

    public string? Raw(string key) => root.TryGetProperty(key, out var value) ? value.GetRawText() : null;

    public string? Text(string key) => Text(root, key);

    public static string? Text(JsonElement from, string key) =>
        from.TryGetProperty(key, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    public JsonElement? Object(string key) =>
        root.TryGetProperty(key, out var value) && value.ValueKind == JsonValueKind.Object ? value : null;

    public double? Number(string key) => Number(root, key);

    public double? Number(JsonElement from, string key)
    {
        if (!from.TryGetProperty(key, out var value) || value.ValueKind == JsonValueKind.Null)
            return null;
        if (value.ValueKind == JsonValueKind.Number && value.GetDouble() is var number && double.IsFinite(number))
            return number;
        Problem(key, $"is {value.GetRawText()}, which must be a number");
        return null;
    }

    /// <summary>A whole number from 1; what is refused is given as 1, so that reading can go on.</summary>
    public int Int(string key, int most, int? otherwise = null)
    {
        var value = Number(key) ?? otherwise;
        if (value is null && Raw(key) is null or "null")
            Problem(key, "is missing");
        else if (value is null)
            return 1; // reported already
        else if (value < 1 || value > most || value != Math.Floor(value.Value))
            Problem(
                key,
                $"is {value.Value.ToString(CultureInfo.InvariantCulture)}, which must be a whole number from "
                    + $"1 to {most:N0}"
            );
        else
            return (int)value;
        return 1;
    }

    public bool Flag(string key, bool otherwise)
    {
        if (!root.TryGetProperty(key, out var value) || value.ValueKind == JsonValueKind.Null)
            return otherwise;
        if (value.ValueKind is JsonValueKind.True or JsonValueKind.False)
            return value.GetBoolean();
        Problem(key, $"is {value.GetRawText()}, which must be true or false");
        return otherwise;
    }

    public void Throw()
    {
        if (problems.Count > 0)
        {
            throw new UserFault(
                $"{file} describes a model that is not supported or not whole.",
                found: string.Join("; ", problems.Select(p => $"{p.Path} {p.Message}"))
            )
            {
                Problems = problems,
            };
        }
    }
}
