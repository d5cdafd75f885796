using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands.Runs;

/// <summary><c>runs tail</c>: the last values of a run, and with -f those that come.</summary>
internal static class RunsTail
{
    public static Command Create()
    {
        var id = RunsCommand.RunArgument();
        var follow = new Option<bool>("--follow", "-f") { Description = "Go on until the run ends." };
        var lines = Shell.NumberOption("--lines", "Steps to begin with.", 10, "0 or more", number => number >= 0);
        lines.Aliases.Add("-n");
        var metrics = new Option<string[]>("--metrics") { Description = "Only these, comma-separated." };
        var (store, json) = (
            RunsCommand.StoreOption(),
            new Option<bool>("--json") { Description = "Print a JSON object a line." }
        );
        var command = new Command(
            "tail",
            "The last values of a run; -f goes on while it trains.\n\nExample:\n  dotnet memopt runs tail -f"
        )
        {
            id,
            follow,
            lines,
            metrics,
            store,
            json,
        };
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            using var runs = CurrentProject.Store(parsed.GetValue(store));
                            Follow(
                                runs,
                                RunsCommand.Need(runs, parsed.GetValue(id)),
                                parsed.GetValue(follow),
                                parsed.GetValue(lines),
                                (parsed.GetValue(metrics) ?? []).SelectMany(RunsList.Apart).ToHashSet(),
                                parsed.GetValue(json),
                                stop
                            );
                            return 0;
                        }
                    )
                )
        );
        return command;
    }

    private static void Follow(
        LiteRunStore runs,
        Run run,
        bool follow,
        int lines,
        HashSet<string> wanted,
        bool json,
        CancellationToken stop
    )
    {
        var (seen, events, first) = (long.MinValue, 0, true);
        while (true)
        {
            var shown = wanted.Count > 0 ? wanted : [.. run.Metrics.Keys];
            var steps = shown
                .Where(run.Metrics.ContainsKey)
                .SelectMany(name =>
                    runs.Points(run.Start.Id, name, seen).Select(point => (point.Step, Name: name, point.Value))
                )
                .GroupBy(value => value.Step)
                .OrderBy(step => step.Key)
                .ToList();
            foreach (var step in first ? steps.TakeLast(lines) : steps)
            {
                if (json)
                    Console.Out.WriteLine(
                        System.Text.Json.JsonSerializer.Serialize(
                            new
                            {
                                step = step.Key,
                                values = step.GroupBy(value => value.Name)
                                    .ToDictionary(value => value.Key, value => value.Last().Value),
                            },
                            Shell.Lines
                        )
                    );
                else
                    Console.Out.WriteLine(
                        $"step {step.Key}  "
                            + string.Join(
                                "  ",
                                step.GroupBy(value => value.Name)
                                    .Select(value => $"{value.Key} {RunsCommand.Brief(value.Last().Value)}")
                            )
                    );
            }
            if (steps.Count > 0)
                seen = steps[^1].Key;
            var happened = runs.Events(run.Start.Id);
            foreach (var one in happened.Skip(events))
                Shell.Progress.WriteLine($"{one.Time:u}  {one.Kind}: {one.Text}");
            (events, first) = (happened.Count, false);
            if (!follow || run.Status != RunStatus.Running)
            {
                var verb = run.Status switch
                {
                    RunStatus.Finished or RunStatus.Failed => "has",
                    RunStatus.Running => "is",
                    _ => "was",
                };
                Shell.Progress.WriteLine(
                    $"run {run.Start.Id} {verb} "
                        + $"{run.Status.ToString().ToLowerInvariant()}{(run.Reason is null ? "" : $": {run.Reason}")}"
                );
                return;
            }
            if (stop.WaitHandle.WaitOne(TimeSpan.FromSeconds(1)))
                return;
            run = runs.Get(run.Start.Id) ?? throw new UserFault($"Run {run.Start.Id} was removed.");
            if (run.Step < seen)
                seen = run.Step; // it went on from an earlier step
        }
    }
}
