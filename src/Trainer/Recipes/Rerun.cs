using Memopt.Core;
using Memopt.Tracking;

namespace Memopt.Trainer.Recipes;

/// <summary>A run that is made once more beside the first.</summary>
internal static class Rerun
{
    /// <summary>In what it is given something else than the first time; none where there was no first.</summary>
    /// <param name="job">Of the run that begins.</param>
    /// <param name="hashes">Of its inputs.</param>
    /// <param name="changes">Hash of the changes that are in no commit, or null.</param>
    public static IReadOnlyList<string> Differences(
        FineTuneJob job,
        IReadOnlyDictionary<string, string> hashes,
        string? changes
    )
    {
        if (job.Rerun is not { } first)
            return [];
        static string Short(string? hash) => hash is null ? "none" : hash[..Math.Min(12, hash.Length)];
        var old = first.Start;
        var differences = old
            .Hashes.Keys.Union(hashes.Keys)
            .Where(key => key != "config" && old.Hashes.GetValueOrDefault(key) != hashes.GetValueOrDefault(key))
            .Order(StringComparer.Ordinal)
            .Select(key =>
                $"content of {key}: was {Short(old.Hashes.GetValueOrDefault(key))}, is "
                + $"{Short(hashes.GetValueOrDefault(key))}"
            )
            .ToList();
        if (old.GitCommit != job.GitCommit)
            differences.Add($"git commit: was {Short(old.GitCommit)}, is {Short(job.GitCommit)}");
        if (
            first.Artifacts.FirstOrDefault(link => link.Name == FineTuneJob.ChangesArtifact)?.Hash is var then
            && then != changes
        )
            differences.Add(
                $"{FineTuneJob.ChangesArtifact}, changes that are in no commit: was {Short(then)}, is {Short(changes)}"
            );
        string? Now(string key) => job.Environment.TryGetValue(key, out var value) ? Secrets.Redact(key, value) : null;
        differences.AddRange(
            job.Environment.Keys.Union(old.Environment.Keys)
                .Where(key =>
                    key is "tool" or "dotnet" or "os" or "backend" or "libtorch" or "driver" or "device"
                    || key.StartsWith("env.", StringComparison.Ordinal)
                )
                .Where(key => old.Environment.GetValueOrDefault(key) != Now(key))
                .Order(StringComparer.Ordinal)
                .Select(key => $"{key}: was {old.Environment.GetValueOrDefault(key, "none")}, is {Now(key) ?? "none"}")
        );
        foreach (var difference in differences)
            job.Observer.Stage(StageNames.Differs, difference);
        if (differences.Count == 0)
            job.Observer.Stage(StageNames.Again, $"model, data, code and machine are those of run {old.Id}");
        return differences;
    }
}
