using System.CommandLine;
using System.Text.Json;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Launch;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>run</c>: trains a config, and resumes from its last checkpoint.</summary>
internal sealed class RunCommand
{
    private readonly Argument<string> config = new("config")
    {
        Description = "The config file.",
        DefaultValueFactory = _ => CurrentProject.Config,
    };
    private readonly Option<string[]> set = Shell.SetOption("Override a setting: --set train.steps=500 (repeatable).");
    private readonly Option<bool> fromStart = new("--from-start")
    {
        Description = "Ignore existing checkpoints and train from the first step.",
    };
    private readonly Option<bool> smoke = new("--smoke")
    {
        Description = "Train the embedded nano model for 20 steps, to try the installation.",
    };
    private readonly Option<string?> fromRun = new("--from-run")
    {
        Description =
            "Train a recorded run again, by its id, with its settings and --set, into its own folder. The "
            + "config names the store, and paths are relative to its folder.",
    };
    private readonly Option<bool> noRehearsal = new("--no-rehearsal")
    {
        Description = "Skip the rehearsal of the longest batch, an evaluation and a checkpoint before the first step.",
    };
    private readonly Option<bool> dry = new("--dry-run")
    {
        Description = "Read config, model and data as a run does, show the plan and the steps, and do not train.",
    };
    private readonly Option<int?> gpus = Shell.NumberOption<int>(
        "--gpus",
        "Start so many ranks on this host, each with a GPU of its own; with --backend cpu, so many processes under "
            + "mpirun. The same as --set distributed.gpus=N.",
        "a number from 1 to 64",
        number => number is >= 1 and <= 64
    );
    private readonly Option<string?> deepSpeed = new("--deepspeed")
    {
        Description =
            "A DeepSpeed JSON whose keys become settings. The same as --set distributed.deepspeed=ds.json, relative to "
            + "the current folder.",
        HelpName = "ds.json",
    };
    private readonly Option<string?> backend = Shell.BackendOption();
    private readonly Option<bool> offline = Shell.OfflineOption();
    private readonly Option<ProgressFormat> progress = Shell.ProgressOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new RunCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "run",
            "Train a config. Resumes a stopped or killed run.\n\nExample:\n  dotnet memopt "
                + "run memopt.json --set train.learningRate=1e-4\n  step 455 / 455  loss 0.1034 …  →  "
                + ".memopt/memopt/adapter\n  dotnet memopt run memopt.json --gpus 8 --deepspeed ds.json"
        )
        {
            config,
            set,
            fromStart,
            fromRun,
            smoke,
            dry,
            noRehearsal,
            gpus,
            deepSpeed,
            backend,
            offline,
            progress,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var place = ProcessEnvironment.RankPlace();
        if (parsed.GetValue(smoke) && parsed.GetValue(fromRun) is not null)
            throw new UserFault("--smoke and --from-run are different trainings.", next: "leave one of them out");
        var (settings, recorded) = Settings(parsed, place?.Size);
        var output = Output(settings, recorded, parsed);
        var view = place is { IsMain: false } ? new SilentView() : IRunView.For(parsed.GetValue(progress));
        if (parsed.GetValue(dry))
        {
            foreach (var warning in settings.DeepSpeed?.Warnings ?? [])
                view.Stage(StageNames.Warning, $"{warning}");
            return new DryRun(settings, parsed.GetValue(backend), parsed.GetValue(offline), stop).Show(
                parsed.GetValue(json)
            );
        }
        if (place is null && settings.Settings.Distributed.Gpus is > 1 and var ranks)
            return Launch(ranks, settings, parsed, view, stop);
        var training = new Training
        {
            Config = settings,
            Output = output,
            FromStart = parsed.GetValue(fromStart) || parsed.GetValue(smoke),
            Backend = parsed.GetValue(backend),
            Offline = parsed.GetValue(offline),
            Parent = recorded is null ? null : new RunParent(recorded.Start.Id, "again"),
            Rerun = recorded,
        };
        var result = training.Run(view, stop);
        if (parsed.GetValue(json) && view is not SilentView)
            Print(result);
        if (!parsed.GetValue(json) || view is JsonObserver)
            view.Finished(result, Judged(result, view.Loss));
        return result.Status == RunStatus.Finished && !(stop.IsCancellationRequested && result.Unsafe.Count > 0)
            ? 0
            : 130;
    }

    /// <summary>Starts this command again, once a rank.</summary>
    private int Launch(int ranks, ProjectConfig settings, ParseResult parsed, IRunView view, CancellationToken stop)
    {
        var target = PlanTarget.Here(settings.Settings, onCpu: parsed.GetValue(backend) == "cpu");
        var launcher = new RankLauncher(
            ranks,
            target.Device.Kind == "cuda" && settings.Settings.Distributed.Backend != DistributedBackend.Mpi,
            settings.Settings.Distributed.Restarts,
            text => view.Stage(StageNames.Ranks, text)
        );
        return launcher.Run(Environment.GetCommandLineArgs()[1..], stop);
    }

    /// <summary>What is to be trained, and the recorded run that it comes from, or null.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="launched">The ranks that a launcher started, or null.</param>
    private (ProjectConfig Config, Run? Recorded) Settings(ParseResult parsed, int? launched)
    {
        var file = parsed.GetValue(config)!;
        string[] overrides =
        [
            .. parsed.GetValue(set) ?? [],
            .. parsed.GetValue(gpus) is { } ranks ? new[] { $"distributed.gpus={ranks}" } : [],
            .. parsed.GetValue(deepSpeed) is { } ds
                ? new[] { $"distributed.deepspeed={JsonSerializer.Serialize(Path.GetFullPath(ds))}" }
                : [],
            .. parsed.GetValue(noRehearsal) ? new[] { "memory.rehearse=false" } : [],
            .. parsed.GetValue(smoke)
                ? new[] { $"model.source={ModelHub.Nano}", "train.steps=20", "tracking.experiment=smoke" }
                : [],
        ];
        if (parsed.GetValue(fromRun) is not { } id)
            return (RunConfigFile.Read(file, overrides, ranks: launched), null);
        var recorded = RecordedRun.Find(file, id);
        return (RecordedRun.Settings(file, recorded, overrides), recorded);
    }

    /// <summary>The folder of checkpoints and result. The same command, given again, goes on in the same
    /// folder.</summary>
    private string Output(ProjectConfig settings, Run? recorded, ParseResult parsed) =>
        recorded is not null
            ? Path.Combine(
                settings.Folder,
                ".memopt",
                $"again-{recorded.Start.Id}{(settings.Overrides.Count == 0 ? "" : "-" + settings.Hash[..8])}"
            )
        : parsed.GetValue(smoke) ? Path.Combine(settings.Folder, ".memopt", "smoke")
        : ProjectPaths.Output(settings.File);

    private static void Print(Result result) =>
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

    /// <summary>"loss …, evaluation loss …, accuracy …", as far as there are such; a build shows it.</summary>
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
        return string.Join(", ", parts.OfType<string>());
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
