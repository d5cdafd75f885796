using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Recipes;

/// <summary>Everything a fine-tune is given; nothing else is looked up on the way.</summary>
internal sealed record FineTuneJob
{
    public required ProjectConfig Config { get; init; }

    /// <summary>Folder of the model, located already.</summary>
    public required string Model { get; init; }

    /// <summary>Where checkpoints and the adapter go.</summary>
    public required string Output { get; init; }

    /// <summary>The name of the artifact that holds the result.</summary>
    public const string AdapterArtifact = "adapter";

    /// <summary>The name of the artifact that holds changes that are in no commit.</summary>
    public const string ChangesArtifact = "git-diff";

    /// <summary>The folder of the result.</summary>
    public string AdapterFolder => Path.Combine(Output, "adapter");
    public required Backend Backend { get; init; }

    /// <summary>The ranks that train together.</summary>
    public World World { get; init; } = World.Single;

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

    /// <summary>What the model's own answers to the evaluation rows are judged by, by name; the means are recorded with
    /// the evaluation.</summary>
    public IReadOnlyDictionary<string, Func<Answer, double>> Metrics { get; init; } =
        new Dictionary<string, Func<Answer, double>>();

    /// <summary>The run that is to be made once more, or null: what is not as it was then is said.</summary>
    public Run? Rerun { get; init; }

    /// <summary>What happened before: retries of downloads.</summary>
    public IReadOnlyList<RunEvent> PriorEvents { get; init; } = [];

    /// <summary>Stores the changes that are in no commit, asked for when the run begins; null when there are
    /// none.</summary>
    public Func<ArtifactLink?>? Changes { get; init; }

    /// <summary>Facts of the environment for the record: versions, commit.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();
    public string? GitCommit { get; init; }
    public bool GitDirty { get; init; }
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>Bytes of tensors that may be there at a moment, read at every layer; null has no limit beyond the
    /// machine's and the config's.</summary>
    public Func<long?>? MemoryLimit { get; init; }

    /// <summary>The name of a file that each rank has of its own.</summary>
    public string RankFile(string name) => World.IsMain ? name : $"{name}.{World.Rank}";

    /// <summary>The job with the settings of the adapter that it starts from.</summary>
    public FineTuneJob WithAdapterOf(ModelSpec spec) =>
        this with
        {
            Config = Recipes.StartingAdapter.Settle(Config, spec, text => Observer.Stage(StageNames.Adapter, text)),
        };
}
