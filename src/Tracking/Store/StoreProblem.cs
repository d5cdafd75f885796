using System.Text.Json.Serialization;

namespace Memopt.Tracking;

/// <summary>Something wrong with a store.</summary>
/// <param name="File">Where.</param>
/// <param name="Text">What.</param>
/// <param name="Repaired">Whether it was repaired.</param>
public sealed record StoreProblem(string File, string Text, [property: JsonPropertyName("mended")] bool Repaired);
