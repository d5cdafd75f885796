using System.Text.Json;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>Data that a run was made from.</summary>
/// <param name="Name">A file, a source, or whatever name it was logged with.</param>
/// <param name="Digest">Hash of the content.</param>
public sealed record DatasetInput(string? Name, string? Digest)
{
    private const string ContextTag = "mlflow.data.context";
    private const string TagPrefix = Run.OwnTags + "dataset.";

    public string SourceType { get; init; } = "local";
    public string Source { get; init; } = "";

    /// <summary>Columns and their types as JSON, or null.</summary>
    public string? Schema { get; init; }

    /// <summary>Counts and the like as JSON, or null.</summary>
    public string? Profile { get; init; }
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();

    /// <summary>What it was used for: train, eval.</summary>
    public string? Context => Tags.GetValueOrDefault(ContextTag);

    /// <summary>The tag of a run that keeps it, and what that says: the same data logged twice is one.</summary>
    public (string Name, string Value) AsTag()
    {
        var key = Sha256.Of(JsonSerializer.SerializeToUtf8Bytes(new[] { Name, Digest }));
        return (TagPrefix + key[..16], JsonSerializer.Serialize(this));
    }

    /// <summary>The data of a run: what its config names, and what was logged.</summary>
    public static IEnumerable<DatasetInput> Of(
        IReadOnlyDictionary<string, string> parameters,
        IReadOnlyDictionary<string, string> hashes,
        IReadOnlyDictionary<string, string> tags
    )
    {
        foreach (var role in new[] { "data.train", "data.eval" })
        {
            var (name, digest) = (parameters.GetValueOrDefault(role), hashes.GetValueOrDefault(role));
            if (name is not null || digest is not null)
                yield return new(name, digest)
                {
                    Source = name ?? "",
                    Tags = new Dictionary<string, string> { [ContextTag] = role["data.".Length..] },
                };
        }
        foreach (
            var (name, value) in tags.Where(tag => tag.Key.StartsWith(TagPrefix, StringComparison.Ordinal))
                .OrderBy(tag => tag.Key, StringComparer.Ordinal)
        )
            yield return JsonSerializer.Deserialize<DatasetInput>(value)!;
    }
}
