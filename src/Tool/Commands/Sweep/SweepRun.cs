using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.Sweeps;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary>How combinations are trained and the result is reported.</summary>
/// <param name="FromStart">Whether combinations are trained again that are trained already.</param>
/// <param name="Backend">The backend asked for, or null.</param>
/// <param name="Offline">Whether no server is asked.</param>
/// <param name="Json">Whether the result is JSON.</param>
internal sealed record SweepOptions(bool FromStart, string? Backend, bool Offline, bool Json);

/// <summary>Trains the combinations of a sweep, each into a folder of its own, and records the sweep as a
/// run.</summary>
internal sealed class SweepRun(
    LoadedSweep sweep,
    SweepOptions options,
    LiteRunStore store,
    IRunView view,
    CancellationToken stop
)
{
    private readonly string folder = FolderOf(sweep);
    private readonly string id = Kept(Path.Combine(FolderOf(sweep), "run-id"), RunLauncher.NewId(TimeProvider.System));
    private readonly List<SweepChild> children = [];

    private int Total => sweep.Combinations.Count;

    /// <summary>Whether it was stopped before its last combination.</summary>
    private bool Stopped => children.Count < Total;

    private int Failed => children.Count(child => child.Reason is not null);

    /// <summary>The folder of a sweep's combinations; to be locked while it is trained.</summary>
    public static string FolderOf(LoadedSweep sweep) =>
        Path.Combine(ProjectPaths.Output(sweep.Base.File), $"sweep-{sweep.Name}");

    /// <summary>Trains what is left, and gives the exit code.</summary>
    public int Run()
    {
        using var record = Begin();
        TrainAll(record);
        var best = new SweepRanking(sweep.Sweep, store).Best(children, text => view.Stage(StageNames.Best, text));
        // Registered before the rest is sent: the registry goes to the storage account with it.
        if (best is not null && !Stopped)
            AdapterRegistrar.Register(Settings(sweep.Combinations[best.Number - 1]), store, best.RunId!, view);
        var left = Upload();
        End(record, best);
        if (options.Json)
            Print(best, left);
        else
            SweepTable.Show(sweep, children, best);
        if (Stopped)
            view.Stage(StageNames.Stopped, Continue);
        view.Finished(Ending(best));
        return Stopped ? 130
            : Failed > 0 ? 1
            : 0;
    }

    private string Continue => $"{children.Count} of {Total} are done; go on with: dotnet memopt sweep {sweep.File}";

    private CommandEnd Ending(SweepChild? best) =>
        new(
            Stopped ? StageNames.Stopped
                : Failed > 0 ? StageNames.Failed
                : StageNames.Finished,
            Stopped ? Continue
                : Failed > 0 ? $"{Failed} of {Total} failed"
                : $"{Total} of {Total} are done"
        )
        {
            RunId = id,
            Judged = best is null ? null : $"best: {best.Number}  {sweep.Sweep.Metric} {RunsCommand.Brief(best.Value)}",
        };

    private IRunWriter Begin()
    {
        var tracking = sweep.Base.Settings.Tracking;
        return store.BeginBestEffort(
            new RunStart
            {
                Id = id,
                Experiment = tracking.Experiment,
                Started = TimeProvider.System.GetUtcNow(),
                Config = sweep.Json,
                Tags = new Dictionary<string, string>(tracking.Tags) { ["kind"] = "sweep" },
                TotalSteps = Total,
            },
            0,
            fault => view.Stage(StageNames.Tracking, fault),
            Path.Combine(folder, "unrecorded")
        );
    }

    private void TrainAll(IRunWriter record)
    {
        foreach (var combination in sweep.Combinations)
        {
            if (stop.IsCancellationRequested)
                return;
            view.TrialStarted(combination.Number, Total, $"{combination}");
            var child = Train(combination);
            view.TrialEnded(
                new(combination.Number, Total, child?.Status ?? StageNames.Stopped, sweep.Sweep.Metric)
                {
                    RunId = child?.RunId,
                    Value = child?.Value,
                    Reason = child?.Reason,
                }
            );
            if (child is null)
                return;
            children.Add(child);
            Record(record, combination, child);
        }
    }

    private void Record(IRunWriter record, Combination combination, SweepChild child)
    {
        if (child.Value is { } value)
            record.Append(
                new MetricRow(child.Number, new Dictionary<string, double> { [$"sweep/{sweep.Sweep.Metric}"] = value })
            );
        if (child.Reason is { } reason)
            record.Append(
                new RunEvent(
                    TimeProvider.System.GetUtcNow(),
                    child.Number,
                    "failed",
                    $"{combination.Number} ({combination}): {reason}"
                )
            );
    }

    /// <summary>Trains one combination; null when it was asked to stop.</summary>
    private SweepChild? Train(Combination combination)
    {
        var own = Path.Combine(folder, $"{combination.Number}");
        Prepare(own, combination);
        try
        {
            var result = new Training
            {
                Config = Settings(combination),
                Output = own,
                FromStart = options.FromStart,
                Backend = options.Backend,
                Offline = options.Offline,
                Parent = new RunParent(id, "sweep"),
            }.Run(view.ForTrial(combination.Number), stop);
            return result.Status == RunStatus.Finished ? Finished(combination, own, result) : null;
        }
        catch (Exception e) when (e is OperationCanceledException || stop.IsCancellationRequested)
        {
            return null;
        }
        catch (Exception e) when (e is not TrackingException)
        {
            var reason = Secrets.Redact(
                e is UserFault { Found: { } found } ? $"{e.Message} ({found})" : e.Message.Split('\n')[0]
            );
            return Child(combination, own, "failed") with { Reason = reason };
        }
    }

    /// <summary>Makes a combination's folder. Checkpoints in it are of no use when another combination was there before
    /// the sweep file or the config changed.</summary>
    private static void Prepare(string own, Combination combination)
    {
        Directory.CreateDirectory(own);
        var (known, checkpoints) = (Path.Combine(own, "combination"), Path.Combine(own, "checkpoints"));
        if (File.Exists(known) && File.ReadAllText(known) == combination.Identity)
            return;
        if (Directory.Exists(checkpoints))
            Directory.Delete(checkpoints, recursive: true);
        File.WriteAllText(known, combination.Identity);
    }

    private ProjectConfig Settings(Combination combination) =>
        RunConfigFile.Read(
            sweep.Base.File,
            [
                .. combination.Settings.Select(setting => $"{setting.Key}={setting.Value}"),
                $"tracking.tags.sweep=\"{sweep.Name}\"",
            ]
        );

    private SweepChild Finished(Combination combination, string own, Result result)
    {
        var run = store.Get(result.RunId);
        return Child(combination, own, "finished") with
        {
            RunId = result.RunId,
            Value = run?.Metrics.GetValueOrDefault(sweep.Sweep.Metric)?.Last,
            Steps = result.Steps,
            UpToDate = result.UpToDate,
            EvalData = run?.Start.Hashes.GetValueOrDefault("data.eval"),
        };
    }

    private static SweepChild Child(Combination combination, string own, string status) =>
        new(
            combination.Number,
            RunId: null,
            status,
            Value: null,
            Steps: null,
            SweepChild.ParametersOf(combination),
            own,
            Reason: null,
            UpToDate: false,
            EvalData: null
        );

    /// <summary>Sends what is not in the storage account yet, and gives what could not be sent.</summary>
    private IReadOnlyList<PendingUpload> Upload()
    {
        using var uploads = ArtifactStores.Uploads(sweep.Base, store, text => view.Stage(StageNames.Upload, text));
        return uploads is null ? [] : ArtifactStores.Finish(uploads, sweep.Base, view, stop);
    }

    private void End(IRunWriter record, SweepChild? best)
    {
        record.Tag("best", best?.RunId);
        var status =
            Stopped ? RunStatus.Stopped
            : Failed == Total ? RunStatus.Failed
            : RunStatus.Finished;
        var reason =
            Stopped ? "stopped on request"
            : Failed > 0 ? $"{Failed} of {Total} failed"
            : null;
        record.End(new Outcome(status, reason) { Ended = TimeProvider.System.GetUtcNow() });
    }

    private void Print(SweepChild? best, IReadOnlyList<PendingUpload> left) =>
        Shell.Print(
            new
            {
                runId = id,
                name = sweep.Name,
                metric = sweep.Sweep.Metric,
                goal = sweep.Sweep.Goal,
                total = Total,
                stopped = Stopped,
                best,
                children,
                notUploaded = RunCommand.Unsent(left),
            }
        );

    /// <summary>What a file holds, written on the first call.</summary>
    private static string Kept(string file, string first)
    {
        if (!File.Exists(file) || File.ReadAllText(file).Length == 0)
            File.WriteAllText(file, first);
        return File.ReadAllText(file);
    }
}
