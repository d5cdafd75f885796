using System.Text.Json;

namespace Memopt.Trainer.Hub;

/// <summary>Which files of a model are needed, and which names are safe to write.</summary>
internal static class ModelFiles
{
    public const string Card = "README.md";

    /// <summary>The shards that an index names.</summary>
    public static IReadOnlyList<string> Shards(byte[] index)
    {
        try
        {
            using var json = JsonDocument.Parse(index);
            return [.. json.RootElement.GetProperty("weight_map").EnumerateObject().Select(entry => Safe(entry.Value.GetString() ?? "")).Distinct().Order(StringComparer.Ordinal)];
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new UserFault($"{ModelLayout.Index} is not an index of safetensors.", found: e.Message.Split('\n')[0]);
        }
    }

    /// <summary>Weights files still missing from a folder; config.json first when that is.</summary>
    public static IReadOnlyList<string> Missing(string folder)
    {
        var needed = ModelLayout.WeightFiles(Here, () => Shards(File.ReadAllBytes(Path.Combine(folder, ModelLayout.Index))));
        return [.. needed.Prepend(ModelLayout.Config).Where(name => !Here(name))];

        bool Here(string name) => IsHere(ModelLayout.In(folder, name));
    }

    /// <summary>Whether a file is there and, when it is a link, also what it points to.</summary>
    public static bool IsHere(string path) => new FileInfo(path) is var file && (file.LinkTarget is null ? file.Exists : file.ResolveLinkTarget(returnFinalTarget: true)?.Exists == true);

    /// <summary>A name that stays inside the folder it is joined to.</summary>
    public static string Safe(string name) => name.Split('/').All(part => part is not ("" or "." or "..") && !part.Any(c => c == '\\' || char.IsControl(c) || Path.GetInvalidFileNameChars().Contains(c)))
        ? name : throw new UserFault("The server names a file that must not be written.", found: JsonSerializer.Serialize(name), next: "do not use this source");

    /// <summary>One part of a path: an ETag, a commit.</summary>
    public static string SafePart(string name) => name.Contains('/') ? Safe("..") : Safe(name);
}
