using System.Text.Json;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Which files of a model are needed, and which names are safe to write.</summary>
internal static class ModelFiles
{
    public const string Card = "README.md";

    /// <summary>Refuses a size that no such file has, before the first byte is asked for.</summary>
    public static void CheckSize(string path, long size)
    {
        long most = path switch
        {
            "tokenizer.json" or "tokenizer.model" or "vocab.json" or "merges.txt" => UntrustedFile.Tokenizer,
            ModelLayout.Template or ModelLayout.ToolTemplate => UntrustedFile.Text,
            ModelLayout.Index => UntrustedFile.Index,
            _ when ModelLayout.Small.Contains(path) || path == Card => UntrustedFile.Settings,
            _ => 1L << 44,
        };
        if (size < 0 || size > most)
            throw new UserFault(
                $"The server lists {path} with a size that it cannot have.",
                found: $"{size:N0} bytes, at most {most:N0}",
                next: "docs/security.md lists the limits; use another source"
            );
    }

    private const int MostShards = 10_000;

    /// <summary>The shards that an index names.</summary>
    public static IReadOnlyList<string> Shards(byte[] index)
    {
        try
        {
            using var json = JsonDocument.Parse(index);
            string[] shards =
            [
                .. json
                    .RootElement.GetProperty("weight_map")
                    .EnumerateObject()
                    .Select(entry => Safe(entry.Value.GetString() ?? ""))
                    .Distinct()
                    .Order(StringComparer.Ordinal),
            ];
            return shards.Length <= MostShards
                ? shards
                : throw new InvalidOperationException($"{shards.Length:N0} files, at most {MostShards:N0}");
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new UserFault(
                $"{ModelLayout.Index} is not an index of safetensors.",
                found: e.Message.Split('\n')[0]
            );
        }
    }

    /// <summary>Weights files still missing from a folder; config.json first when that is.</summary>
    public static IReadOnlyList<string> Missing(string folder)
    {
        var needed = ModelLayout.WeightFiles(
            Here,
            () => Shards(UntrustedFile.ReadAllBytes(Path.Combine(folder, ModelLayout.Index), UntrustedFile.Index))
        );
        return [.. needed.Prepend(ModelLayout.Config).Where(name => !Here(name))];

        bool Here(string name) => IsHere(ModelLayout.In(folder, name));
    }

    /// <summary>Whether a file is there and, when it is a link, also what it points to.</summary>
    public static bool IsHere(string path) =>
        new FileInfo(path) is var file
        && (file.LinkTarget is null ? file.Exists : file.ResolveLinkTarget(returnFinalTarget: true)?.Exists == true);

    /// <summary>A name that stays inside the folder it is joined to.</summary>
    public static string Safe(string name) =>
        name.Split('/')
            .All(part =>
                part is not ("" or "." or "..")
                && !part.Any(c => c == '\\' || char.IsControl(c) || Path.GetInvalidFileNameChars().Contains(c))
            )
            ? name
            : throw new UserFault(
                "The server names a file that must not be written.",
                found: JsonSerializer.Serialize(name),
                next: "do not use this source"
            );

    /// <summary>One part of a path: an ETag, a commit.</summary>
    public static string SafePart(string name) => name.Contains('/') ? Safe("..") : Safe(name);
}
