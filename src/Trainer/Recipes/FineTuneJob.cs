using Memopt.Tracking;
using Memopt.Trainer.Data;
using Memopt.Trainer.Native;

namespace Memopt.Trainer.Recipes;

/// <summary>Everything a fine-tune is given; nothing else is looked up on the way.</summary>
public sealed record FineTuneJob
{
    public required LoadedConfig Config { get; init; }
    /// <summary>Folder of the model, located already.</summary>
    public required string Model { get; init; }
    /// <summary>Where checkpoints and the adapter go.</summary>
    public required string Output { get; init; }
    /// <summary>The folder of the result.</summary>
    public string AdapterFolder => Path.Combine(Output, "adapter");
    public required Backend Backend { get; init; }
    public required IRunStore Store { get; init; }
    public required IArtifactStore Artifacts { get; init; }
    /// <summary>Sends what is stored, and checkpoints, to where it is safe; null when nothing is sent.</summary>
    public BackgroundUpload? Uploads { get; init; }
    public required ITrainingObserver Observer { get; init; }
    /// <summary>Id of a run that begins here; a resumed one keeps its own.</summary>
    public required string RunId { get; init; }
    public bool FromStart { get; init; }
    /// <summary>Settings that the command line changed: values as JSON.</summary>
    public IReadOnlyDictionary<string, string> Overrides { get; init; } = new Dictionary<string, string>();
    /// <summary>The run that this one came from, or null.</summary>
    public RunParent? Parent { get; init; }
    /// <summary>What the model's own answers to the evaluation rows are judged by, by name; the means are recorded with the evaluation.</summary>
    public IReadOnlyDictionary<string, Func<Answer, double>> Metrics { get; init; } = new Dictionary<string, Func<Answer, double>>();
    /// <summary>The run that is to be made once more, or null: what is not as it was then is said.</summary>
    public Run? Rerun { get; init; }
    /// <summary>What happened before: retries of downloads.</summary>
    public IReadOnlyList<RunEvent> PriorEvents { get; init; } = [];
    /// <summary>Stores the changes that are in no commit, asked for when the run begins; null when there are none.</summary>
    public Func<ArtifactLink?>? Changes { get; init; }
    /// <summary>Facts of the surroundings for the record: versions, commit.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();
    public string? GitCommit { get; init; }
    public bool GitDirty { get; init; }
    public TimeProvider Clock { get; init; } = TimeProvider.System;
    /// <summary>Bytes of tensors that may be there at a moment, read at every layer; null has no limit beyond the machine's and the config's.</summary>
    public Func<long?>? MemoryLimit { get; init; }
}

/// <summary>Told what passes; prints or stays silent.</summary>
public interface ITrainingObserver
{
    /// <summary>The run is being recorded under this id.</summary>
    void RunStarted(string runId)
    {
    }

    /// <summary>A stage begins or has a result.</summary>
    void Stage(string name, string text);

    /// <summary>Within a long stage: done of total.</summary>
    void Progress(string name, long done, long total);

    /// <summary>The memory ledger, before training and after it (then with measured values).</summary>
    void Ledger(IReadOnlyList<LedgerRow> rows, bool measured);

    void Step(StepRow row, int total);
}

/// <summary>How a fine-tune ended.</summary>
/// <param name="RunId">In the store.</param>
/// <param name="Status">Finished, or Stopped with a checkpoint to go on from.</param>
/// <param name="Steps">Optimizer steps made in all.</param>
/// <param name="Adapter">The folder that holds the result, when finished.</param>
/// <param name="Score">The last evaluation, when there is evaluation data.</param>
/// <param name="UpToDate">Whether nothing had to be done.</param>
public sealed record Result(string RunId, RunStatus Status, int Steps, string? Adapter, Score? Score, bool UpToDate = false)
{
    /// <summary>The last evaluation's values by name, those of the job's own metrics too; empty when there is none.</summary>
    public IReadOnlyDictionary<string, double> Eval { get; init; } = new Dictionary<string, double>();
    /// <summary>What was to be in a storage account and is not, with the reason.</summary>
    public IReadOnlyList<PendingUpload> Unsafe { get; init; } = [];
}

/// <summary>Reports at once and on the same thread; <see cref="Progress{T}"/> would do so later, on another.</summary>
internal sealed class SynchronousProgress(Action<int> report) : IProgress<int>
{
    public void Report(int value) => report(value);
}
