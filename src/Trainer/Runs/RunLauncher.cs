using System.Reflection;
using System.Runtime.InteropServices;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Runs;

/// <summary>One training as a user means it, by the tool or by a program: brings what the config names, holds its
/// folder, opens its store, loads libtorch, trains, and says in what surroundings.</summary>
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

    /// <summary>What the model's own answers to the evaluation rows are judged by, by name.</summary>
    public IReadOnlyDictionary<string, Func<Answer, double>> Metrics { get; init; } =
        new Dictionary<string, Func<Answer, double>>();

    /// <summary>Trains; goes on from the last checkpoint in its folder.</summary>
    /// <param name="stop">Ends it after the step.</param>
    /// <exception cref="UserFault">Something has to be mended first.</exception>
    public Result Run(CancellationToken stop)
    {
        var (config, parent) = (Config, Parent);
        var before = new List<RunEvent>();
        void Retried(string text)
        {
            lock (before)
                before.Add(new RunEvent(DateTimeOffset.UtcNow, 0, StageNames.Download, Secrets.Redact(text)));
        }
        var fetcher = new InputFetcher(ProcessEnvironment.HubSettings(Offline), () => Pulling(Retried));
        string? started = null;
        if (config.Settings.Adapter.From is { } from)
        {
            var (folder, version, maker) = AdapterSource.Resolve(
                from == Setting("adapter.from") && Was("adapter.version") is { } then ? then : from,
                config,
                Offline,
                Observer.Stage,
                stop
            );
            (config, started) = (config with { StartingAdapter = folder }, version);
            parent ??= maker is null ? null : new RunParent(maker, "fork");
        }
        var source = ModelSource.Parse(config.Settings.Model.Source, config.Folder);
        var known =
            Was("model.source") == $"{source}"
            && config.Settings.Model.Revision == Setting("model.revision")
            && source.Kind is SourceKind.HuggingFace or SourceKind.ModelScope
                ? Was("model.commit")
                : null;
        var model = fetcher.FetchModel(source, known ?? config.Settings.Model.Revision, stop);
        if (model.Commit is not null)
            Observer.Stage(
                StageNames.Download,
                $"{model.Source} at {model.Commit}, {model.FetchedBytes / 1048576.0:N1} MiB fetched"
            );
        config = fetcher.FetchData(config, stop, set => Was($"data.commit.{set}"));
        foreach (var data in config.Snapshots.Values)
            Observer.Stage(
                StageNames.Download,
                $"{data.Source} at {data.Commit}, {data.Files.Count} files, {data.FetchedBytes / 1048576.0:N1} "
                    + "MiB fetched"
            );
        using var one = AcquireLock(Output, Observer, stop);
        var backend = Native.Backend.Load(Backend, ProcessEnvironment.BackendEnvironment(config.Folder));
        foreach (var warning in backend.Warnings)
            Observer.Stage(StageNames.Warning, warning);
        if (parent is { Kind: "sweep" } && backend.Kind == "cuda")
            Cuda.EmptyCache(backend.Device); // what those before it had is free again
        var (commit, dirty) = ProcessEnvironment.Commit(config.Folder);
        using var uploads = ArtifactStores.Uploads(config, Store, text => Observer.Stage(StageNames.Upload, text));
        var result = FineTuneRecipe.Run(
            new FineTuneJob
            {
                Config = config,
                Model = model.Folder,
                Output = Output,
                Backend = backend,
                Store = Store,
                Artifacts = ArtifactStores.Artifacts(config),
                Uploads = uploads,
                Observer = Observer,
                RunId = NewId(),
                FromStart = FromStart,
                Parent = parent,
                Rerun = Rerun,
                Metrics = Metrics,
                PriorEvents = before,
                Overrides = new Dictionary<string, string>(
                    (Rerun?.Start.Overrides ?? new Dictionary<string, string>())
                        .Concat(config.Overrides.Select(change => KeyValuePair.Create(change.Key, change.New)))
                        .GroupBy(setting => setting.Key)
                        .Select(settings => settings.Last())
                ),
                Changes = commit is null ? null : () => Changes(config),
                GitCommit = commit,
                GitDirty = dirty,
                Environment = new Dictionary<string, string>(
                    model
                        .Files.Select(file => KeyValuePair.Create($"model.files.{file.Path}", file.Hash))
                        .Concat(
                            config.Snapshots.Select(data =>
                                KeyValuePair.Create($"data.commit.{data.Key}", data.Value.Commit ?? "none")
                            )
                        )
                        .Concat(ProcessEnvironment.Variables())
                        .Concat(
                            new[]
                            {
                                ("driver", backend.Kind == "cuda" ? Cuda.Driver() : null),
                                ("adapter.version", started),
                            }
                                .Where(fact => fact.Item2 is not null)
                                .Select(fact => KeyValuePair.Create(fact.Item1, fact.Item2!))
                        )
                )
                {
                    ["model.source"] = model.Source,
                    ["model.commit"] = model.Commit ?? "none",
                    ["tool"] = Version,
                    ["dotnet"] = RuntimeInformation.FrameworkDescription,
                    ["os"] = RuntimeInformation.OSDescription,
                    ["backend"] = backend.Kind,
                    ["libtorch"] = backend.Version ?? "unknown",
                    ["device"] =
                        (backend.Kind == "cuda" ? Cuda.DeviceName() : null)
                        ?? $"{Environment.ProcessorCount} CPU threads",
                    ["host"] = Environment.MachineName,
                    ["config.file"] = Path.GetFileName(config.File),
                },
            },
            stop
        );
        // Of a sweep only the best is registered, by the sweep.
        if (result.Status == RunStatus.Finished && parent is not { Kind: "sweep" })
            Register(config, Store, result.RunId, Observer);
        // What a part of a sweep leaves unsent its next part sends, and the sweep waits for all of it.
        return uploads is null || parent is { Kind: "sweep" }
            ? result
            : result with
            {
                Unsafe = ArtifactStores.Finish(uploads, config, Observer, stop),
            };

        // What the run that is made again took.
        string? Was(string fact) =>
            Rerun?.Start.Environment.GetValueOrDefault(fact) is { } value and not "none" ? value : null;
        string? Setting(string name) => Rerun?.Params.GetValueOrDefault(name);
    }

    /// <summary>Stores what is in no commit; null when there is nothing, or when it cannot be stored, which ends no
    /// training.</summary>
    private static ArtifactLink? Changes(ProjectConfig config)
    {
        if (GitChanges.Of(config.Folder) is not { } patch)
            return null;
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        try
        {
            File.WriteAllText(Path.Combine(folder, "changes.patch"), patch);
            return ArtifactStores.Artifacts(config).Put(FineTuneRecipe.ChangesName, folder) with { Path = null };
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

    /// <summary>Makes a run's adapter the next version of its name; what cannot be registered ends no
    /// training.</summary>
    public static void Register(ProjectConfig config, IRunStore store, string id, ITrainingObserver observer)
    {
        if (config.Settings.Adapter.Kind == AdapterKind.None)
            return;
        try
        {
            if (
                store.Get(id) is not { } run
                || run.Artifacts.FirstOrDefault(link => link.Name == "adapter") is not { } link
            )
                return;
            var name = config.Settings.Tracking.Register ?? AdapterRegistry.NameOf(config.Settings.Tracking.Experiment);
            var registry = new AdapterRegistry(ArtifactStores.Artifacts(config).Folder);
            var before = registry.Find(name);
            if (
                registry.Register(name, link, run, config.Settings.Tracking.Best) is not { } version
                || registry.Find(name) is not { } adapter
                || adapter.Versions.Count <= (before?.Versions.Count ?? 0)
            )
                return;
            var aliases = adapter.Aliases.Where(alias => alias.Value == version.Number).Select(alias => alias.Key);
            observer.Stage(StageNames.Registered, $"{name}@{version.Number}: {string.Join(", ", aliases)}");
            if (adapter.NotCompared(before) is { } was)
                observer.Stage(
                    "",
                    $"{name}@{was.Number}, the best before, was judged on other evaluation data; the two are not "
                        + "compared"
                );
        }
        catch (TrackingException e)
        {
            observer.Stage(
                StageNames.Registry,
                $"{e.Message} Register it later: dotnet memopt adapters register NAME {id}"
            );
        }
    }

    /// <summary>Of memopt: tool and library have one.</summary>
    public static string Version { get; } =
        typeof(RunLauncher)
            .Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()
            ?.InformationalVersion.Split('+')[0]
        ?? "0";

    /// <summary>Sortable by time, unique by chance.</summary>
    public static string NewId() => DateTime.UtcNow.ToString("yyMMddHHmmss") + Guid.NewGuid().ToString("N")[..6];

    /// <summary>Two processes must not write one run's checkpoints: the second waits for the first, and then finds what
    /// that has left.</summary>
    public static FileStream AcquireLock(string output, ITrainingObserver observer, CancellationToken stop)
    {
        var path = Path.Combine(output, "run.lock");
        for (var told = false; ; told = true)
        {
            try
            {
                Directory.CreateDirectory(output);
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            // EWOULDBLOCK on Linux and macOS; a sharing violation
            catch (IOException e) when (e.HResult is 11 or 35 or unchecked((int)0x80070020))
            {
                if (!told)
                    observer.Stage(
                        StageNames.Waiting,
                        "this config is being trained by another process; what it leaves is taken up"
                    );
                if (stop.WaitHandle.WaitOne(200))
                    stop.ThrowIfCancellationRequested();
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new UserFault(
                    $"{output} cannot be written.",
                    found: e.Message,
                    next: "run from a folder that can be written; checkpoints and the result go beside the config"
                )
                {
                    Failed = true,
                };
            }
        }
    }
}
