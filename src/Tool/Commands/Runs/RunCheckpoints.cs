using System.Text.Json.Nodes;
using Memopt.Tool.Cli;

namespace Memopt.Tool.Commands;

/// <summary>Finds the checkpoints that runs left.</summary>
internal static class RunCheckpoints
{
    /// <summary>Folders of checkpoints of some runs, beside the configs of this folder.</summary>
    /// <param name="store">The store's folder as it was named, or null.</param>
    /// <param name="runs">Ids of the runs.</param>
    public static IEnumerable<string> Of(string? store, HashSet<string> runs)
    {
        var root = Path.GetDirectoryName(CurrentProject.StoreFolder(store))!;
        if (!Directory.Exists(root))
            yield break;
        foreach (
            var manifest in Directory
                .EnumerateDirectories(
                    root,
                    "checkpoints",
                    new EnumerationOptions { RecurseSubdirectories = true, MaxRecursionDepth = 3 }
                ) // those of a sweep lie two folders deeper
                .SelectMany(folder => Directory.EnumerateDirectories(folder, "step-*"))
                .Select(folder => Path.Combine(folder, "manifest.json"))
                .Where(File.Exists)
        )
        {
            if (JsonNode.Parse(File.ReadAllBytes(manifest))?["runId"] is { } id && runs.Contains((string)id!))
                yield return Path.GetDirectoryName(manifest)!;
        }
    }
}
