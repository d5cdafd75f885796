using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Commands.Runs;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>sweep</c>: trains each combination of a sweep file as <c>run</c> would, one after another, and names the
/// best.</summary>
internal static class SweepCommand
{
    /// <summary>What became of a combination.</summary>
    private sealed record Child(
        int Number,
        string? RunId,
        string Status,
        double? Value,
        int? Steps,
        IReadOnlyDictionary<string, JsonNode?> Parameters,
        string Folder,
        string? Reason,
        bool UpToDate,
        string? EvalData
    );

    public static Command Create()
    {
        var file = new Argument<string>("file") { Description = "The sweep file." };
        var dry = new Option<bool>("--dry-run") { Description = "List the combinations and train none." };
        var fromStart = new Option<bool>("--from-start")
        {
            Description = "Train combinations again that are trained already.",
        };
        var (backend, offline, json) = (Shell.BackendOption(), Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command(
            "sweep",
            "Train combinations of settings, each a run of its own, and name the best; goes on where it was "
                + "stopped or killed.\n\nExample:\n  dotnet memopt sweep rates.json\n  best: 3  "
                + "train.learningRate=2e-4  adapter.rank=16  eval_loss 0.0913"
        )
        {
            file,
            dry,
            fromStart,
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
                        {
                            var sweep = RunConfigFile.ReadSweep(parsed.GetValue(file)!);
                            return parsed.GetValue(dry)
                                ? List(sweep, parsed.GetValue(json))
                                : Run(
                                    sweep,
                                    parsed.GetValue(fromStart),
                                    parsed.GetValue(backend),
                                    parsed.GetValue(offline),
                                    parsed.GetValue(json),
                                    stop
                                );
                        }
                    )
                )
        );
        return command;
    }

    private static int List(LoadedSweep sweep, bool json)
    {
        if (json)
            Shell.Print(
                new
                {
                    name = sweep.Name,
                    combinations = sweep.Combinations.Select(one => new
                    {
                        number = one.Number,
                        parameters = Parameters(one),
                    }),
                }
            );
        else
        {
            foreach (var combination in sweep.Combinations)
                Shell.Output.WriteLine($"{combination.Number.ToString().PadLeft(4)}  {combination}");
        }
        return 0;
    }

    private static int Run(
        LoadedSweep sweep,
        bool fromStart,
        string? backend,
        bool offline,
        bool json,
        CancellationToken stop
    )
    {
        var watcher = new ConsoleObserver();
        var (config, total) = (sweep.Base, sweep.Combinations.Count);
        var folder = Path.Combine(ProjectPaths.Output(config.File), $"sweep-{sweep.Name}");
        using var one = RunLauncher.AcquireLock(folder, watcher, stop);
        using var store = ArtifactStores.Store(config);
        var id = Kept(Path.Combine(folder, "run-id"), RunLauncher.NewId());
        using var record = store.BeginBestEffort(
            new RunStart
            {
                Id = id,
                Experiment = config.Settings.Tracking.Experiment,
                Started = DateTimeOffset.UtcNow,
                Config = sweep.Json,
                Tags = new Dictionary<string, string>(config.Settings.Tracking.Tags) { ["kind"] = "sweep" },
                TotalSteps = total,
            },
            0,
            fault => watcher.Stage(StageNames.Tracking, fault),
            Path.Combine(folder, "unrecorded")
        );

        var children = new List<Child>();
        foreach (var combination in sweep.Combinations)
        {
            if (stop.IsCancellationRequested)
                break;
            watcher.Stage(StageNames.Sweep, $"{combination.Number} of {total}: {combination}");
            var child = Train(combination);
            if (child is null)
                break;
            children.Add(child);
            if (child.Value is { } value)
                record.Append(
                    new MetricRow(
                        child.Number,
                        new Dictionary<string, double> { [$"sweep/{sweep.Sweep.Metric}"] = value }
                    )
                );
            if (child.Reason is { } reason)
                record.Append(
                    new RunEvent(
                        DateTimeOffset.UtcNow,
                        child.Number,
                        StageNames.Failed,
                        $"{combination.Number} ({combination}): {reason}"
                    )
                );
        }

        var (stopped, failed) = (children.Count < total, children.Count(child => child.Reason is not null));
        var best = Best(sweep.Sweep, children, text => watcher.Stage(StageNames.Best, text), store);
        // Registered before the rest is sent: the registry goes to the storage account with it.
        if (best is not null && !stopped)
            RunLauncher.Register(Settings(sweep.Combinations[best.Number - 1]), store, best.RunId!, watcher);
        IReadOnlyList<PendingUpload> left = [];
        using (var uploads = ArtifactStores.Uploads(config, store, text => watcher.Stage(StageNames.Upload, text)))
            left = uploads is null ? [] : ArtifactStores.Finish(uploads, config, watcher, stop);

        record.Tag("best", best?.RunId);
        var status =
            stopped ? RunStatus.Stopped
            : failed == total ? RunStatus.Failed
            : RunStatus.Finished;
        record.End(
            new Outcome(
                status,
                stopped ? "stopped on request"
                    : failed > 0 ? $"{failed} of {total} failed"
                    : null
            )
            {
                Ended = DateTimeOffset.UtcNow,
            }
        );
        if (json)
            Shell.Print(
                new
                {
                    runId = id,
                    name = sweep.Name,
                    metric = sweep.Sweep.Metric,
                    goal = sweep.Sweep.Goal,
                    total,
                    stopped,
                    best,
                    children,
                    notUploaded = RunCommand.Unsent(left),
                }
            );
        else
            Show(sweep, children, best);
        if (stopped)
            watcher.Stage(
                StageNames.Stopped,
                $"{children.Count} of {total} are done; go on with: dotnet memopt sweep {sweep.File}"
            );
        return stopped ? 130
            : failed > 0 ? 1
            : 0;

        ProjectConfig Settings(Combination combination) =>
            RunConfigFile.Read(
                config.File,
                [
                    .. combination.Settings.Select(setting => $"{setting.Key}={setting.Value}"),
                    $"tracking.tags.sweep=\"{sweep.Name}\"",
                ]
            );

        // Null when it was asked to stop.
        Child? Train(Combination combination)
        {
            var own = Path.Combine(folder, $"{combination.Number}");
            Directory.CreateDirectory(own);
            var (known, checkpoints) = (Path.Combine(own, "combination"), Path.Combine(own, "checkpoints"));
            if (!File.Exists(known) || File.ReadAllText(known) != combination.Identity)
            {
                // Another combination was here before the sweep file or the config changed; its checkpoints are of no
                // use.
                if (Directory.Exists(checkpoints))
                    Directory.Delete(checkpoints, recursive: true);
                File.WriteAllText(known, combination.Identity);
            }

            Child Became(
                string status,
                string? runId = null,
                int? steps = null,
                string? reason = null,
                bool upToDate = false
            )
            {
                var run = runId is null ? null : store.Get(runId);
                return new(
                    combination.Number,
                    runId,
                    status,
                    run?.Metrics.GetValueOrDefault(sweep.Sweep.Metric)?.Last,
                    steps,
                    Parameters(combination),
                    own,
                    reason,
                    upToDate,
                    run?.Start.Hashes.GetValueOrDefault("data.eval")
                );
            }
            try
            {
                var result = RunCommand.Train(
                    Settings(combination),
                    own,
                    fromStart,
                    backend,
                    offline,
                    new ConsoleObserver(),
                    new RunParent(id, "sweep"),
                    again: null,
                    stop
                );
                return result.Status == RunStatus.Finished
                    ? Became("finished", result.RunId, result.Steps, upToDate: result.UpToDate)
                    : null;
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
                watcher.Stage(StageNames.Failed, reason);
                return Became("failed", reason: reason);
            }
        }
    }

    /// <summary>The best combination; null, and why, when there is none: scores on different evaluation data say
    /// nothing about each other.</summary>
    private static Child? Best(Sweep sweep, List<Child> children, Action<string> tell, LiteRunStore store)
    {
        Child Of(IEnumerable<Child> some) =>
            sweep.Goal == SweepGoal.Minimize ? some.MinBy(child => child.Value)! : some.MaxBy(child => child.Value)!;
        var judged = children
            .Where(child => child.Value is { } value && !double.IsNaN(value))
            .GroupBy(child => RegisteredAdapter.ByData(sweep.Metric) ? child.EvalData : null)
            .Select(Of)
            .ToList();
        if (judged.Count > 1)
            tell(
                $"none: combinations were judged on {judged.Count} different sets of evaluation data; the best on "
                    + $"each: {string.Join(", ", judged.Select(child => child.Number))}"
            );
        else if (judged.Count == 0 && children.Find(child => child.RunId is not null) is { } trained)
            tell(
                $"none: no combination has {sweep.Metric} as a number; runs have "
                    + $"{string.Join(", ", store.Get(trained.RunId!)!.Metrics.Keys.Order(StringComparer.Ordinal))}"
            );
        return judged.Count == 1 ? judged[0] : null;
    }

    private static void Show(LoadedSweep sweep, List<Child> children, Child? best)
    {
        var table = new FittedTable("--json").AddColumn("#", right: true);
        foreach (var parameter in sweep.Sweep.Parameters.List)
            table.AddColumn(Markup.Escape(parameter.Setting), rank: 4);
        table
            .AddColumn(Markup.Escape(sweep.Sweep.Metric), right: true, rank: 0)
            .AddColumn("status", rank: 3)
            .AddColumn("run", rank: 2)
            .AddColumn("note", breaks: true, rank: 1);
        foreach (var child in children)
        {
            table.AddRow([
                $"{child.Number}",
                .. sweep
                    .Combinations[child.Number - 1]
                    .Settings.Select(setting => Markup.Escape(Secrets.Redact(setting.Key, setting.Value))),
                RunsCommand.Brief(child.Value),
                RunsCommand.Spelled(child.Status),
                child.RunId ?? "–",
                child == best ? "[green]best[/]" : Markup.Escape(child.Reason ?? ""),
            ]);
        }
        Shell.Output.Write(table);
        if (best is not null)
        {
            Shell.Output.WriteLine(
                $"best: {best.Number}  {sweep.Combinations[best.Number - 1]}  {sweep.Sweep.Metric} "
                    + $"{RunsCommand.Brief(best.Value)}"
            );
            Shell.Output.WriteLine($"      {Path.Combine(best.Folder, "adapter")}");
        }
    }

    private static Dictionary<string, JsonNode?> Parameters(Combination combination) =>
        combination.Settings.ToDictionary(
            setting => setting.Key,
            setting => Secrets.Tells(setting.Key) ? Secrets.Redacted : JsonNode.Parse(Secrets.Redact(setting.Value))
        );

    /// <summary>What a file holds, written on the first call.</summary>
    private static string Kept(string file, string first)
    {
        if (!File.Exists(file) || File.ReadAllText(file).Length == 0)
            File.WriteAllText(file, first);
        return File.ReadAllText(file);
    }
}
