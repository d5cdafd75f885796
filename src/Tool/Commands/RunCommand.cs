using System.CommandLine;
using System.Runtime.InteropServices;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer;
using Memopt.Trainer.Hub;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Commands;

/// <summary><c>run</c>: trains what a config says, going on from the last checkpoint by itself.</summary>
internal static class RunCommand
{
    public static Command Create()
    {
        var config = new Argument<string>("config") { Description = "The config file.", DefaultValueFactory = _ => Workplace.DefaultConfig };
        var set = new Option<string[]>("--set") { Description = "Change a setting: --set train.steps=500 (repeatable).", AllowMultipleArgumentsPerToken = false };
        var fromStart = new Option<bool>("--from-start") { Description = "Leave earlier checkpoints aside and train from the first step." };
        var smoke = new Option<bool>("--smoke") { Description = "Try the whole path on the embedded nano model for 20 steps." };
        var noRehearsal = new Option<bool>("--no-rehearsal") { Description = "Begin with the first step: do not try the longest batch, an evaluation and a checkpoint first." };
        var (backend, offline, json) = (Shell.BackendOption(), Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command("run", "Train what a config says; goes on where a stopped or killed run was.\n\nExample:\n  dotnet memopt run memopt.json --set train.learningRate=1e-4\n  step 455 / 455  loss 0.1034 …  →  .memopt/memopt/adapter") { config, set, fromStart, smoke, noRehearsal, backend, offline, json };
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
            Run(parsed.GetValue(config)!, [.. parsed.GetValue(set) ?? [], .. parsed.GetValue(noRehearsal) ? new[] { "memory.rehearse=false" } : []], parsed.GetValue(fromStart), parsed.GetValue(smoke), parsed.GetValue(backend), parsed.GetValue(offline), parsed.GetValue(json), stop))));
        return command;
    }

    private static int Run(string file, string[] overrides, bool fromStart, bool smoke, string? requested, bool offline, bool json, CancellationToken stop)
    {
        var watcher = new ConsoleWatcher();
        if (smoke)
            overrides = [.. overrides, $"model.source={ModelHub.Nano}", "train.steps=20", "tracking.experiment=smoke"];
        var result = Train(file, overrides, config => smoke ? Path.Combine(config.Folder, ".memopt", "smoke") : Workplace.Output(config), fromStart || smoke, requested, offline, watcher, parent: null, stop);
        if (json)
            Shell.Print(new { runId = result.RunId, status = result.Status, steps = result.Steps, adapter = result.Adapter, upToDate = result.UpToDate, eval = result.Score });
        else
            watcher.Stage(result.Status == RunStatus.Finished ? "finished" : "stopped", $"run {result.RunId}; see it with: dotnet memopt runs show {result.RunId}");
        return result.Status == RunStatus.Finished ? 0 : 130;
    }

    /// <summary>Brings what a config names and trains it; going on from the last checkpoint in its folder.</summary>
    /// <param name="file">The config file.</param>
    /// <param name="overrides">Settings as <c>a.b=value</c>.</param>
    /// <param name="place">The folder of checkpoints and result.</param>
    /// <param name="fromStart">Whether checkpoints are left aside.</param>
    /// <param name="requested">The backend asked for, or null.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="watcher">Told what passes.</param>
    /// <param name="parent">The run that this one is a part of, or null.</param>
    /// <param name="stop">Ends it after the step.</param>
    public static Result Train(string file, IReadOnlyList<string> overrides, Func<LoadedConfig, string> place, bool fromStart, string? requested, bool offline, IWatcher watcher, RunParent? parent, CancellationToken stop)
    {
        var config = RunConfigFile.Read(file, overrides);
        watcher.Stage("config", file);
        foreach (var change in config.Overrides)
            watcher.Stage("", $"{change.Key}  {change.Old} -> {change.New}   (command line)");
        var model = PullCommand.Bring(ModelSource.Parse(config.Config.Model.Source, config.Folder), config.Config.Model.Revision, offline, stop);
        if (model.Commit is not null)
            watcher.Stage("download", $"{model.Source} at {model.Commit}, {model.FetchedBytes / 1048576.0:N1} MiB fetched");
        config = PullCommand.BringData(config, offline, stop);
        foreach (var data in config.Located.Values)
            watcher.Stage("download", $"{data.Source} at {data.Commit}, {data.Files.Count} files, {data.FetchedBytes / 1048576.0:N1} MiB fetched");
        var output = place(config);
        using var one = OnlyOne(output);
        using var store = Workplace.Store(config);
        var backend = Backend.Load(requested, Shell.BackendEnvironment(config.Folder));
        foreach (var warning in backend.Warnings)
            watcher.Stage("warning", warning);
        if (parent is not null && backend.Kind == "cuda")
            Cuda.ReleaseCached(backend.Device);                               // what those before it had is free again
        var (commit, dirty) = Shell.Git(config.Folder);
        using var stopping = CancellationTokenSource.CreateLinkedTokenSource(stop);
        return FineTune.Run(new Job
        {
            Config = config,
            Model = model.Folder,
            Output = output,
            Backend = backend,
            Store = store,
            Artifacts = (IArtifactStore?)Workplace.Remote(config, stopping.Token, fault => watcher.Stage("tracking", $"{fault.Message} The adapter is stored here only. {fault.Next}")) ?? Workplace.Artifacts(config),
            Watcher = watcher,
            RunId = NewId(),
            FromStart = fromStart,
            Parent = parent,
            GitCommit = commit,
            GitDirty = dirty,
            Environment = new Dictionary<string, string>(model.Files.Select(file => KeyValuePair.Create($"model.files.{file.Path}", file.Hash))
                .Concat(config.Located.Select(data => KeyValuePair.Create($"data.commit.{data.Key}", data.Value.Commit ?? "none"))).Concat(Shell.Variables()))
            {
                ["model.source"] = model.Source,
                ["model.commit"] = model.Commit ?? "none",
                ["tool"] = Shell.Version,
                ["dotnet"] = RuntimeInformation.FrameworkDescription,
                ["os"] = RuntimeInformation.OSDescription,
                ["backend"] = backend.Kind,
                ["libtorch"] = backend.Version ?? "unknown",
                ["device"] = (backend.Kind == "cuda" ? Cuda.DeviceName() : null) ?? $"{Environment.ProcessorCount} CPU threads",
                ["host"] = Environment.MachineName,
            },
        }, stopping.Token);
    }

    /// <summary>Sortable by time, unique by chance.</summary>
    public static string NewId() => DateTime.UtcNow.ToString("yyMMddHHmmss") + Guid.NewGuid().ToString("N")[..6];

    /// <summary>Two processes must not write one run's checkpoints.</summary>
    public static FileStream OnlyOne(string output)
    {
        Directory.CreateDirectory(output);
        try
        {
            return new FileStream(Path.Combine(output, "run.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e)
        {
            throw new UserFault("This config is being trained by another process.", found: e.Message, next: "wait for it, or copy the config under another name");
        }
    }
}
