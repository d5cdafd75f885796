using System.CommandLine;
using System.Runtime.InteropServices;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Commands.Runs;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>run</c>: trains what a config says, going on from the last checkpoint by itself.</summary>
internal static class RunCommand
{
    public static Command Create()
    {
        var config = new Argument<string>("config")
        {
            Description = "The config file.",
            DefaultValueFactory = _ => CurrentProject.Config,
        };
        var set = Shell.SetOption("Change a setting: --set train.steps=500 (repeatable).");
        var fromStart = new Option<bool>("--from-start")
        {
            Description = "Leave earlier checkpoints aside and train from the first step.",
        };
        var smoke = new Option<bool>("--smoke")
        {
            Description = "Try the whole path on the embedded nano model for 20 steps.",
        };
        var fromRun = new Option<string?>("--from-run")
        {
            Description =
                "Train a recorded run once more, by its id: its settings, with --set on top, into a folder of "
                + "its own. The config names the store, and the folder that paths are relative to.",
        };
        var noRehearsal = new Option<bool>("--no-rehearsal")
        {
            Description =
                "Begin with the first step: do not try the longest batch, an evaluation and a checkpoint first.",
        };
        var dry = new Option<bool>("--dry-run")
        {
            Description = "Read config, model and data as a run does, show the plan and the steps, and train nothing.",
        };
        var (backend, offline, json) = (Shell.BackendOption(), Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command(
            "run",
            "Train what a config says; goes on where a stopped or killed run was.\n\nExample:\n  dotnet memopt "
                + "run memopt.json --set train.learningRate=1e-4\n  step 455 / 455  loss 0.1034 …  →  "
                + ".memopt/memopt/adapter"
        )
        {
            config,
            set,
            fromStart,
            fromRun,
            smoke,
            dry,
            noRehearsal,
            backend,
            offline,
            json,
        };
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                            Run(
                                parsed.GetValue(config)!,
                                [
                                    .. parsed.GetValue(set) ?? [],
                                    .. parsed.GetValue(noRehearsal) ? new[] { "memory.rehearse=false" } : [],
                                ],
                                parsed.GetValue(fromStart),
                                parsed.GetValue(fromRun),
                                parsed.GetValue(smoke),
                                parsed.GetValue(dry),
                                parsed.GetValue(backend),
                                parsed.GetValue(offline),
                                parsed.GetValue(json),
                                stop
                            )
                    )
                )
        );
        return command;
    }

    private static int Run(
        string file,
        string[] overrides,
        bool fromStart,
        string? fromRun,
        bool smoke,
        bool dry,
        string? requested,
        bool offline,
        bool json,
        CancellationToken stop
    )
    {
        var watcher = new ConsoleObserver();
        if (smoke)
            overrides = [.. overrides, $"model.source={ModelHub.Nano}", "train.steps=20", "tracking.experiment=smoke"];
        if (smoke && fromRun is not null)
            throw new UserFault("--smoke and --from-run are different trainings.", next: "leave one of them out");
        var again = fromRun is null ? null : Recorded(file, fromRun);
        var config = again is null ? RunConfigFile.Read(file, overrides) : Settings(file, again, overrides);
        if (dry)
            return DryRun.Show(config, requested, offline, json, stop);
        // The same command, given again, goes on in the same folder.
        var output =
            again is not null
                ? Path.Combine(
                    config.Folder,
                    ".memopt",
                    $"again-{again.Start.Id}{(config.Overrides.Count == 0 ? "" : "-" + config.Hash[..8])}"
                )
            : smoke ? Path.Combine(config.Folder, ".memopt", "smoke")
            : ProjectPaths.Output(config.File);
        var result = Train(
            config,
            output,
            fromStart || smoke,
            requested,
            offline,
            watcher,
            again is null ? null : new RunParent(again.Start.Id, "again"),
            again,
            stop
        );
        if (json)
            Shell.Print(
                new
                {
                    runId = result.RunId,
                    status = result.Status,
                    steps = result.Steps,
                    adapter = result.Adapter,
                    upToDate = result.UpToDate,
                    eval = result.Score,
                    notUploaded = Unsent(result.Unsafe),
                }
            );
        else
            watcher.Stage(
                result.Status == RunStatus.Finished ? StageNames.Finished : StageNames.Stopped,
                $"run {result.RunId}{Judged(result, watcher.Loss)}; see it with: dotnet memopt runs show {result.RunId}"
            );
        return result.Status == RunStatus.Finished && !(stop.IsCancellationRequested && result.Unsafe.Count > 0)
            ? 0
            : 130;
    }

    /// <summary>": loss …, evaluation loss …, accuracy …", as far as there are such; a build shows it.</summary>
    private static string Judged(Result result, double? loss)
    {
        string?[] parts =
        [
            loss is null ? null : $"loss {loss:F4}",
            result.Score is not { } score
                ? null
                : $"evaluation loss {score.Loss:F4}"
                    + $"{(score.Answers == 0 ? "" : $", accuracy {score.Accuracy:P1} of {score.Answers:N0} answers")}",
        ];
        return parts.All(part => part is null) ? "" : $": {string.Join(", ", parts.OfType<string>())}";
    }

    private static Run Recorded(string file, string id)
    {
        using var store = File.Exists(file)
            ? ArtifactStores.Store(RunConfigFile.Read(file, [], checkFiles: false))
            : CurrentProject.Store((string?)null);
        var run = RunsCommand.Need(store, id);
        return run.Start.Tags.GetValueOrDefault("kind") != "sweep"
            ? run
            : throw new UserFault(
                $"Run {run.Start.Id} is a sweep.",
                next: "train a part of it, or all of it: dotnet memopt sweep FILE --from-start"
            );
    }

    /// <summary>A recorded run's settings, with overrides; paths are relative to the config's folder.</summary>
    private static ProjectConfig Settings(string file, Run run, string[] overrides)
    {
        var config = RunConfigFile.Recorded(
            Path.Combine(Path.GetDirectoryName(file) ?? "", $"run-{run.Start.Id}"),
            run.Start.Config,
            overrides
        );
        return
            RunConfigFile
                .Flat(config.Settings)
                .FirstOrDefault(setting =>
                    setting.Key != "tracking.tags" && setting.Value.Contains(Secrets.Redacted, StringComparison.Ordinal)
                )
                is not { Key: { } secret }
            ? config
            : throw new UserFault(
                $"{secret} had a secret in it, which is not recorded.",
                found: Secrets.Redacted,
                next: $"give it again: --set {secret}=…"
            );
    }

    /// <summary>Brings what a config names and trains it; going on from the last checkpoint in its folder.</summary>
    /// <param name="config">The config, with what the command line changed.</param>
    /// <param name="output">The folder of checkpoints and result.</param>
    /// <param name="fromStart">Whether checkpoints are left aside.</param>
    /// <param name="requested">The backend asked for, or null.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="observer">Told what passes.</param>
    /// <param name="parent">The run that this one came from, or null.</param>
    /// <param name="again">The run that is made once more, or null; what it took of moving branches and aliases is
    /// taken again.</param>
    /// <param name="stop">Ends it after the step.</param>
    public static Result Train(
        ProjectConfig config,
        string output,
        bool fromStart,
        string? requested,
        bool offline,
        ITrainingObserver observer,
        RunParent? parent,
        Run? again,
        CancellationToken stop
    )
    {
        using var store = ArtifactStores.Store(config);
        using var log = new RunLog(observer, store);
        var shown = observer;
        using var told = stop.Register(() =>
            shown.Stage(
                StageNames.Stopping,
                "after this step, with a checkpoint; Ctrl+C after some seconds ends it at once"
            )
        );
        observer = log;
        observer.Stage(StageNames.Config, config.File);
        foreach (var change in config.Overrides)
            observer.Stage(
                "",
                $"{change.Key}  {Secrets.Redact(change.Key, change.Old)} -> "
                    + $"{Secrets.Redact(change.Key, change.New)}   (command line)"
            );
        return new RunLauncher
        {
            Config = config,
            Output = output,
            Store = store,
            Observer = observer,
            Pulling = told => new PullProgress(told),
            Backend = requested,
            Offline = offline,
            FromStart = fromStart,
            Parent = parent,
            Rerun = again,
        }.Run(stop);
    }

    /// <summary>What is not in the storage account, for JSON.</summary>
    public static object Unsent(IEnumerable<PendingUpload> left) =>
        left.Select(one => new
        {
            runId = one.Upload.Run,
            name = one.Upload.Link.Name,
            hash = one.Upload.Link.Hash,
            why = one.Why is null ? null : Secrets.Redact(one.Why),
            next = one.Next,
        });
}
