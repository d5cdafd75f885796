using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Optim;

namespace Memopt.Trainer.Recipes;

/// <summary>What previous starts left in a job's folder: the last whole checkpoint and the run that it belongs to. Says
/// whether there is anything left to do, and from where.</summary>
internal sealed class ResumeState
{
    private readonly FineTuneJob job;
    private readonly Run? run;
    private (CheckpointManifest Manifest, string Path)? last;

    public ResumeState(FineTuneJob job)
    {
        this.job = job;
        Checkpoints = new CheckpointFolder(
            Path.Combine(job.Output, "checkpoints"),
            job.Config.Settings.Checkpoint.Keep
        );
        if (job.FromStart)
            Checkpoints.Clear();
        last = Checkpoints.Latest(text => job.Observer.Stage(StageNames.Resume, text));
        run = last is { } found ? job.Store.Get(found.Manifest.RunId) : null;
    }

    public CheckpointFolder Checkpoints { get; }

    /// <summary>The run that goes on, or the one that begins.</summary>
    public string RunId => last?.Manifest.RunId ?? job.RunId;

    /// <summary>Optimizer steps made already.</summary>
    public int Step => last?.Manifest.Step ?? 0;

    /// <summary>The folder of the checkpoint, or null.</summary>
    public string? Checkpoint => last?.Path;

    /// <summary>What a run that goes on has chosen from the memory that was free then; another number would change its
    /// bits.</summary>
    public int? MicroBatch => Finished ? null : last?.Manifest.MicroBatch;

    /// <summary>What was measured when the run was trained, where only its evaluation is left.</summary>
    public IReadOnlyList<LedgerRow>? Ledger => last is not null && Finished ? run!.Ledger : null;

    private bool Finished => run?.Status == RunStatus.Finished;

    /// <summary>The result when these inputs are trained and judged already. A finished run of other inputs is not gone
    /// on from: this one begins anew.</summary>
    /// <param name="hashes">Of the inputs, by name.</param>
    /// <param name="steps">Optimizer steps in all.</param>
    public Result? Done(IReadOnlyDictionary<string, string> hashes, int steps)
    {
        if (last is not { } found || !Finished)
            return null;
        var trained = found.Manifest.Step >= steps && Refusals(found.Manifest, hashes).Count == 0;
        if (
            trained
            && hashes.TryGetValue("data.eval", out var eval)
            && run!.Start.Hashes.GetValueOrDefault("data.eval") != eval
        )
        {
            job.Observer.Stage(
                StageNames.Evaluation,
                $"run {RunId} has trained exactly this already, but was judged by other rows"
            );
            return null;
        }
        if (trained && Whole())
        {
            job.Observer.Stage(
                StageNames.Done,
                $"run {RunId} has trained exactly this already; --from-start trains it again"
            );
            return new(RunId, RunStatus.Finished, Step, job.AdapterFolder, null, UpToDate: true) { Eval = run!.Eval };
        }
        Checkpoints.Clear();
        last = null;
        return null;
    }

    /// <exception cref="UserFault">The checkpoint is of another model, other data or other settings that cannot change
    /// within a run.</exception>
    public void Check(IReadOnlyDictionary<string, string> hashes)
    {
        if (last is not { } found || Refusals(found.Manifest, hashes) is not { Count: > 0 } refused)
            return;
        throw new UserFault(
            $"The run cannot go on from step {Step}: settings differ from its checkpoint.",
            found: string.Join("; ", refused.Select(r => $"{r.Key} was {r.Old}, is {r.New}")),
            next: "set them back, or run again with --from-start"
        )
        {
            Problems =
            [
                .. refused.Select(r =>
                    RunConfigFile.At(
                        job.Config,
                        r.Key,
                        $"was {r.Old} in the checkpoint, is {r.New}: set it back, or train anew with --from-start",
                        "MEMOPT0008"
                    )
                ),
            ],
        };
    }

    private List<Override> Refusals(CheckpointManifest manifest, IReadOnlyDictionary<string, string> hashes)
    {
        var differences = PinnedSettings.Differences(manifest.Config, job.Config.Settings).ToList();
        foreach (var key in new[] { "data.train", "model", "adapter.from" })
        {
            if (manifest.Hashes.GetValueOrDefault(key) != hashes.GetValueOrDefault(key))
                differences.Add(
                    new(
                        $"content of {key}",
                        manifest.Hashes.GetValueOrDefault(key, "none")[..4] + "…",
                        hashes.GetValueOrDefault(key, "none")[..4] + "…"
                    )
                );
        }
        // An adapter without biases has the same order in both.
        if (
            manifest.WeightOrder != ShardLayout.Order
            && job.Config.Settings.Adapter is { Kind: AdapterKind.None } or { Biases: not BiasMode.None }
        )
            differences.Add(new("the order of the weights", "an older version's", "that of the layers"));
        if (manifest.Order != Batches.Order)
            differences.Add(
                new(
                    "the order of the rows",
                    "an older version's",
                    "one in which every epoch ends with its own last batch"
                )
            );
        return differences;
    }

    /// <summary>Whether the result of the run is where it was left, every file in its length; what is missing comes
    /// back from the artifacts.</summary>
    private bool Whole()
    {
        var folder = job.AdapterFolder;
        if (
            run!.Artifacts.FirstOrDefault(artifact => artifact.Name == "adapter" && artifact.Hash.Length > 0)
            is not { } link
        )
            return Directory.Exists(folder);
        try
        {
            if (
                job
                    .Artifacts.Files(link.Hash)
                    .Any(file =>
                        new FileInfo(Path.Combine(folder, file.Path)) is var there
                        && (!there.Exists || there.Length != file.Bytes)
                    )
            )
                job.Artifacts.Get(link.Hash, folder);
            return true;
        }
        catch (TrackingException)
        {
            return false;
        }
    }
}
