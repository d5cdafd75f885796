using System.Text.Json;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>Reading of <c>tokenizer.json</c>'s parts, with refusals that name the part.</summary>
internal static class Component
{
    public static string Type(this JsonElement part) => part.Text("type") ?? throw new UserFault("A part of tokenizer.json has no \"type\".", part.ToString());

    public static string? Text(this JsonElement part, string key) =>
        part.ValueKind == JsonValueKind.Object && part.TryGetProperty(key, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    public static bool Flag(this JsonElement part, string key, bool otherwise) =>
        part.TryGetProperty(key, out var value) && value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.GetBoolean() : otherwise;

    public static JsonElement? Part(this JsonElement parent, string key) =>
        parent.TryGetProperty(key, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;

    public static UserFault Unsupported(string what, string? found) =>
        new($"The tokenizer uses {what}, which is not supported.", found, "use a model with a byte-level BPE tokenizer (Llama 3, Qwen, GPT-2, Mistral Nemo)");

    /// <summary>The pattern of a Replace or Split: where it matches.</summary>
    public static Func<string, IEnumerable<(int Start, int End)>> Pattern(JsonElement part)
    {
        var pattern = part.Part("pattern") ?? throw Unsupported($"{part.Type()} without a pattern", part.ToString());
        if (pattern.Text("Regex") is { } regex) return new CodePointRegex(regex).Matches;
        return (pattern.Text("String") ?? (pattern.ValueKind == JsonValueKind.String ? pattern.GetString() : null)) is { } literal
            ? text => Occurrences(text, literal)
            : throw Unsupported($"a pattern of {part.Type()}", pattern.ToString());
    }

    private static IEnumerable<(int Start, int End)> Occurrences(string text, string literal)
    {
        if (literal.Length == 0) yield break;
        for (var at = text.IndexOf(literal, StringComparison.Ordinal); at >= 0; at = text.IndexOf(literal, at + literal.Length, StringComparison.Ordinal))
            yield return (at, at + literal.Length);
    }
}
