using System.Text.Json;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>Reading of <c>tokenizer.json</c>'s parts, with refusals that name the part.</summary>
internal static class Component
{
    public static string Type(this JsonElement part) =>
        part.Text("type") ?? throw new UserFault("A part of tokenizer.json has no \"type\".", part.ToString());

    public static string? Text(this JsonElement part, string key) =>
        part.ValueKind == JsonValueKind.Object
        && part.TryGetProperty(key, out var value)
        && value.ValueKind == JsonValueKind.String
            ? value.GetString()
            : null;

    public static bool Flag(this JsonElement part, string key, bool otherwise) =>
        part.TryGetProperty(key, out var value) && value.ValueKind is JsonValueKind.True or JsonValueKind.False
            ? value.GetBoolean()
            : otherwise;

    public static JsonElement? Part(this JsonElement parent, string key) =>
        parent.TryGetProperty(key, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;

    public static UserFault Unsupported(string what, string? found) =>
        new(
            $"The tokenizer uses {what}, which is not supported.",
            found,
            "docs/tokenizers.md lists what is; use a model of another tokenizer"
        );

    /// <summary>Refuses a part of more steps than any real tokenizer has: each costs a pass over every text, and a
    /// level of the stack.</summary>
    public static void CheckSteps(JsonElement? part, string name)
    {
        if (part is { } json && Steps(json) is > MostSteps and var steps)
            throw Unsupported($"more than {MostSteps} steps in its {name}", $"{steps:N0}");

        // JSON itself is at most 64 deep.
        static long Steps(JsonElement json) =>
            json.ValueKind switch
            {
                JsonValueKind.Array => json.EnumerateArray().Sum(Steps),
                JsonValueKind.Object => json.EnumerateObject().Sum(entry => Steps(entry.Value))
                    + (json.TryGetProperty("type", out _) ? 1 : 0),
                _ => 0,
            };
    }

    private const int MostSteps = 100;

    /// <summary>What a list of matches takes for each, with its spare room.</summary>
    public const int BytesPerMatch = 16;

    /// <summary>Where a pattern matches, in order.</summary>
    public delegate List<(int Start, int End)> Matches(ReadOnlySpan<char> text, Budget? budget);

    /// <summary>The pattern of a Replace or Split.</summary>
    public static Matches Pattern(JsonElement part)
    {
        if (Literal(part) is { } literal)
            return (text, budget) => Occurrences(text, literal, budget);
        return part.Part("pattern")?.Text("Regex") is { } regex
            ? new CodePointRegex(regex).Matches
            : throw Unsupported($"{part.Type()} with this pattern", part.ToString());
    }

    /// <summary>The pattern where it is plain text.</summary>
    public static string? Literal(JsonElement part) =>
        part.Part("pattern") is not { } pattern ? null
        : pattern.ValueKind == JsonValueKind.String ? pattern.GetString()
        : pattern.Text("String");

    public static List<(int Start, int End)> Occurrences(ReadOnlySpan<char> text, string literal, Budget? budget)
    {
        var found = new List<(int, int)>();
        for (
            var at = 0;
            literal.Length > 0 && text[at..].IndexOf(literal, StringComparison.Ordinal) is >= 0 and var skipped;
            at = found[^1].Item2
        )
        {
            budget?.Spend(BytesPerMatch);
            found.Add((at + skipped, at + skipped + literal.Length));
        }
        return found;
    }
}
