using System.Reflection;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Runs;

/// <summary>One training as a user starts it, from the tool or from a program: fetches the inputs that the config
/// names, locks the run's folder, loads libtorch, trains, registers and uploads the result.</summary>
internal sealed record RunLauncher
{
    public required ProjectConfig Config { get; init; }

    /// <summary>The folder of checkpoints and result.</summary>
    public required string Output { get; init; }

    public required ITrainingObserver Observer { get; init; }

    /// <summary>Makes the watcher of one download, which tells of its retries.</summary>
    public required Func<Action<string>, IPullWatcher> Pulling { get; init; }

    /// <summary>The record of runs; stays open.</summary>
    public required IRunStore Store { get; init; }

    /// <summary>cpu, cuda, a folder that holds libtorch, or null for what is found.</summary>
    public string? Backend { get; init; }

    /// <summary>Whether no server is asked.</summary>
    public bool Offline { get; init; }

    /// <summary>Whether checkpoints are left aside.</summary>
    public bool FromStart { get; init; }

    /// <summary>The run that this one came from, or null.</summary>
    public RunParent? Parent { get; init; }

    /// <summary>The run that is made once more, or null; what it took of moving branches and aliases is taken
    /// again.</summary>
    public Run? Rerun { get; init; }

    /// <summary>Time of the run and of its events.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>What the model's own answers to the evaluation rows are judged by, by name.</summary>
    public IReadOnlyDictionary<string, Func<Answer, double>> Metrics { get; init; } =
        new Dictionary<string, Func<Answer, double>>();

    /// <summary>Trains; resumes from the last checkpoint in its folder.</summary>
    /// <param name="stop">Ends the training after the step.</param>
    /// <exception cref="UserFault">The user has something to fix first.</exception>
    public Result Run(CancellationToken stop)
    {
        var world = JoinRanks();
        var inputs = world.MainFirst(() => new InputResolver(this).Resolve(stop));
        var config = inputs.Config;
        using var one = world.IsMain ? RunLock.Acquire(Output, Observer, stop) : null;
        var backend = LoadBackend(config, inputs.Parent);
        using var uploads = world.IsMain
            ? ArtifactStores.Uploads(config, Store, text => Observer.Stage(StageNames.Upload, text))
            : null;
        var result = FineTuneRecipe.Run(Job(inputs, backend, uploads, world), stop);
        // After a fault a rank leaves without this: it would wait for the others, and its launcher ends them.
        world.Dispose();
        if (!world.IsMain)
            return result;
        // Of a sweep only the best is registered, by the sweep.
        if (result.Status == RunStatus.Finished && inputs.Parent is not { Kind: "sweep" })
            AdapterRegistrar.Register(config, Store, result.RunId, Observer);
        // What a part of a sweep leaves unsent its next part sends, and the sweep waits for all of it.
        return uploads is null || inputs.Parent is { Kind: "sweep" }
            ? result
            : result with
            {
                Unsafe = ArtifactStores.Finish(uploads, config, Observer, stop),
            };
    }

    /// <summary>Joins the ranks that a launcher started; a world of one where there is none.</summary>
    private World JoinRanks()
    {
        if (ProcessEnvironment.RankPlace() is not { } place)
            return Config.Settings.Distributed.Gpus is > 1 and var ranks
                ? throw new UserFault(
                    $"distributed.gpus is {ranks}, and this process is alone.",
                    next: $"dotnet memopt run --gpus {ranks} starts the ranks, as do mpirun, srun and torchrun; or "
                        + "leave distributed.gpus out"
                )
                : World.Single;
        ProcessEnvironment.PrepareRank(place);
        var backend = FindBackend(Config); // its warnings come when the run loads it
        Observer.Stage(StageNames.Ranks, $"rank {place.Rank} of {place.Size}, started by {place.Launcher}");
        return World.Join(place, backend, Config.Settings.Distributed.Backend, ProcessEnvironment.CheckVerbs);
    }

    private Backend LoadBackend(ProjectConfig config, RunParent? parent)
    {
        var backend = FindBackend(config);
        foreach (var warning in backend.Warnings)
            Observer.Stage(StageNames.Warning, warning);
        foreach (var warning in config.DeepSpeed?.Warnings ?? [])
            Observer.Stage(StageNames.Warning, $"{warning}");
        if (parent is { Kind: "sweep" } && backend.Kind == "cuda")
            Cuda.EmptyCache(backend.Device); // the memory of the sweep's run before this one is free again
        return backend;
    }

    private Backend FindBackend(ProjectConfig config) =>
        Native.Backend.Load(Backend, ProcessEnvironment.BackendEnvironment(config.Folder));

    private FineTuneJob Job(ResolvedInputs inputs, Backend backend, BackgroundUpload? uploads, World world)
    {
        var config = inputs.Config;
        var provenance = Provenance.Collect(config, inputs.Model, inputs.AdapterVersion, backend);
        return new()
        {
            Config = config,
            Model = inputs.Model.Folder,
            Output = Output,
            Backend = backend,
            World = world,
            Store = Store,
            Artifacts = ArtifactStores.Artifacts(config),
            Uploads = uploads,
            Observer = Observer,
            RunId = world.FromMain(() => ProcessEnvironment.RunId ?? NewId(Clock)),
            Clock = Clock,
            FromStart = FromStart && world.IsMain, // which clears the checkpoints before the others look
            Parent = inputs.Parent,
            Rerun = Rerun,
            Metrics = Metrics,
            PriorEvents = inputs.Events,
            Overrides = AllOverrides(config),
            Changes = provenance.Commit is null ? null : () => Provenance.StoreChanges(config),
            GitCommit = provenance.Commit,
            GitDirty = provenance.Dirty,
            Environment = provenance.Environment,
        };
    }

    /// <summary>The settings that the command line changed, those of the run that is repeated before this
    /// one's.</summary>
    private Dictionary<string, string> AllOverrides(ProjectConfig config)
    {
        var all = new Dictionary<string, string>(Rerun?.Start.Overrides ?? new Dictionary<string, string>());
        foreach (var change in config.Overrides)
            all[change.Key] = change.New;
        return all;
    }

    /// <summary>Of memopt: tool and library have one.</summary>
    public static string Version { get; } =
        typeof(RunLauncher)
            .Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()
            ?.InformationalVersion.Split('+')[0]
        ?? "0";

    /// <summary>Sortable by time, unique by chance.</summary>
    public static string NewId(TimeProvider clock) =>
        clock.GetUtcNow().ToString("yyMMddHHmmss") + Guid.NewGuid().ToString("N")[..6];
}
