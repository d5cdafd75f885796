using System.Runtime.InteropServices;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Runs;

/// <summary>Where a run comes from: inputs, versions, machine, commit. The record keeps it, and a rerun compares
/// it.</summary>
/// <param name="Environment">Facts by name.</param>
/// <param name="Commit">Git commit of the config's folder, or null.</param>
/// <param name="Dirty">Whether the folder has changes that are in no commit.</param>
internal sealed record Provenance(IReadOnlyDictionary<string, string> Environment, string? Commit, bool Dirty)
{
    /// <summary>Collects the facts of a run that is about to begin.</summary>
    /// <param name="config">The config, with its data sets fetched.</param>
    /// <param name="model">The model.</param>
    /// <param name="adapter">Version of the registered adapter that the run starts from, or null.</param>
    /// <param name="backend">libtorch.</param>
    public static Provenance Collect(ProjectConfig config, Snapshot model, string? adapter, Backend backend)
    {
        var cuda = backend.Kind == "cuda";
        var facts = new Dictionary<string, string>(ProcessEnvironment.Variables())
        {
            ["model.source"] = model.Source,
            ["model.commit"] = model.Commit ?? "none",
            ["tool"] = RunLauncher.Version,
            ["dotnet"] = RuntimeInformation.FrameworkDescription,
            ["os"] = RuntimeInformation.OSDescription,
            ["backend"] = backend.Kind,
            ["libtorch"] = backend.Version ?? "unknown",
            ["device"] = (cuda ? Cuda.DeviceName() : null) ?? $"{System.Environment.ProcessorCount} CPU threads",
            ["host"] = System.Environment.MachineName,
            ["config.file"] = Path.GetFileName(config.File),
        };
        foreach (var file in model.Files)
            facts[$"model.files.{file.Path}"] = file.Hash;
        foreach (var (source, data) in config.Snapshots)
            facts[$"data.commit.{source}"] = data.Commit ?? "none";
        if (cuda && Cuda.Driver() is { } driver)
            facts["driver"] = driver;
        if (adapter is not null)
            facts["adapter.version"] = adapter;
        var (commit, dirty) = ProcessEnvironment.Commit(config.Folder);
        return new(facts, commit, dirty);
    }

    /// <summary>Stores what is in no commit; null when there is nothing, or when it cannot be stored, which ends no
    /// training.</summary>
    public static ArtifactLink? StoreChanges(ProjectConfig config)
    {
        if (GitChanges.Of(config.Folder) is not { } patch)
            return null;
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        try
        {
            File.WriteAllText(Path.Combine(folder, "changes.patch"), patch);
            return ArtifactStores.Artifacts(config).Put(FineTuneJob.ChangesArtifact, folder) with { Path = null };
        }
        catch (Exception e) when (e is TrackingException or IOException)
        {
            return null;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
