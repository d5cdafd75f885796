using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs show</c>: all that is known of one run.</summary>
internal static class RunsShow
{
    private const int HashShown = 12;

    public static Command Create()
    {
        var id = RunsCommand.RunArgument();
        var all = new Option<bool>("--all") { Description = "Also show settings at their defaults." };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "show",
            "Show one run: settings, estimated and measured memory, steps, result. The default is the newest "
                + "run.\n\nExample:\n  dotnet memopt runs show\n  dotnet memopt runs show 261124 --all"
        )
        {
            id,
            all,
            store,
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                using var runs = CurrentProject.Store(parsed.GetValue(store));
                var run = RunsCommand.Need(runs, parsed.GetValue(id));
                if (parsed.GetValue(json))
                    Shell.Print(RunView.Of(run, runs) with { Steps = runs.Steps(run.Start.Id) });
                else
                    Show(run, runs, parsed.GetValue(all));
                return 0;
            }
        );
        return command;
    }

    private static void Show(Run run, LiteRunStore runs, bool all)
    {
        var console = Shell.Output;
        console.MarkupLine(
            $"[bold]run {Markup.Escape(run.Start.Id)}[/]  {RunsCommand.Spelled(run.Status)}"
                + $"{(run.Reason is null ? "" : Markup.Escape($" ({run.Reason})"))}"
        );
        console.Write(Grid(Facts(run)));
        Settings(console, run, all);
        // What a client of MLflow's interface logged has neither plan nor steps of a training.
        if (run.Ledger.Count > 0)
            console.Write(LedgerTable.Of(run.Ledger, run.Ledger.Any(row => row.Measured is not null)));
        if (runs.Steps(run.Start.Id) is { Count: > 0 } steps && run.Start.TotalSteps > 0)
            console.WriteLine(
                $"steps {steps[0].Step}–{steps[^1].Step} of {run.Start.TotalSteps}, loss {steps[0].Loss:F4} → "
                    + $"{steps[^1].Loss:F4}, median {Median(steps):N0} tokens/s"
            );
        foreach (var happened in runs.Events(run.Start.Id))
            console.WriteLine($"{happened.Time:u}  after step {happened.Step}  {happened.Kind}: {happened.Text}");
        if (run.Metrics.Count > 0)
            console.Write(Metrics(run));
        foreach (var eval in runs.Evals(run.Start.Id))
            console.WriteLine(
                $"evaluation after step {eval.Step}: "
                    + string.Join(
                        ", ",
                        eval.Values.Select(value => $"{value.Key} {Human.Metric(value.Key, value.Value)}")
                    )
            );
    }

    private static IEnumerable<(string Name, string? Value)> Facts(Run run)
    {
        yield return ("experiment", run.Start.Experiment);
        yield return (
            "started",
            $"{run.Start.Started:u}"
                + $"{(run.Ended is { } ended ? $", took {Human.Duration(ended - run.Start.Started)}" : "")}"
        );
        yield return (
            "commit",
            run.Start.GitCommit is { } commit ? Short(commit) + (run.Start.GitDirty ? " (with changes)" : "") : null
        );
        if (run.Start.Parent is { } parent)
            yield return ("parent", $"{parent.Id} ({parent.Kind})");
        if (run.Start.Overrides.Count > 0)
            yield return (
                "set",
                string.Join("  ", run.Start.Overrides.Select(setting => $"{setting.Key}={setting.Value}"))
            );
        foreach (var (name, hash) in run.Start.Hashes)
            yield return ($"sha256 {name}", Short(hash));
        foreach (var (name, value) in run.Start.Environment)
            yield return (name, value);
        foreach (var artifact in run.Artifacts)
            yield return (
                artifact.Name,
                $"{artifact.Path}{(artifact.Path is not null && artifact.Place is not null ? ", " : "")}"
                    + $"{artifact.Place} ({LedgerTable.Size(artifact.Bytes)}, {Short(artifact.Hash)})"
            );
    }

    /// <summary>The settings by section, a section a line; those at their defaults only when all are asked
    /// for.</summary>
    private static void Settings(IAnsiConsole console, Run run, bool all)
    {
        var defaults = ConfigWriter
            .Flat(new RunConfig())
            .ToDictionary(setting => setting.Key, setting => Human.Unquoted(setting.Value));
        var shown = run
            .Params.Where(setting => all || defaults.GetValueOrDefault(setting.Key) != Human.OneLine(setting.Value))
            .ToList();
        if (run.Params.Count == 0)
            return;
        console.WriteLine();
        console.MarkupLine(
            all
                ? "[bold]settings[/]"
                : $"[bold]settings[/] ({run.Params.Count - shown.Count} more are at their defaults: --all shows them)"
        );
        console.Write(
            Grid(
                shown
                    .GroupBy(setting => setting.Key.Contains('.') ? setting.Key.Split('.')[0] : "")
                    .Select(section =>
                        (
                            section.Key,
                            (string?)
                                string.Join(
                                    "  ",
                                    section.Select(setting =>
                                        $"{setting.Key[(section.Key.Length > 0 ? section.Key.Length + 1 : 0)..]}="
                                        + $"{Human.Setting(setting.Value)}"
                                    )
                                )
                        )
                    )
            )
        );
    }

    private static FittedTable Metrics(Run run)
    {
        var table = new FittedTable("--json")
            .AddColumn("metric")
            .AddColumn("last", right: true)
            .AddColumn("at step", right: true)
            .AddColumn("least", right: true, rank: 2)
            .AddColumn("at step", right: true, rank: 4)
            .AddColumn("most", right: true, rank: 3)
            .AddColumn("at step", right: true, rank: 5);
        foreach (var (name, metric) in run.Metrics)
        {
            table.AddRow(
                Markup.Escape(name),
                Human.Metric(name, metric.Last),
                $"{metric.LastStep}",
                Human.Metric(name, metric.Min),
                $"{metric.MinStep}",
                Human.Metric(name, metric.Max),
                $"{metric.MaxStep}"
            );
        }
        return table;
    }

    private static Grid Grid(IEnumerable<(string Name, string? Value)> facts)
    {
        var grid = new Grid().AddColumn(new GridColumn().NoWrap()).AddColumn();
        foreach (var (name, value) in facts)
            grid.AddRow(Markup.Escape(name), Markup.Escape(value ?? "–"));
        return grid;
    }

    private static string Short(string hash) => hash[..Math.Min(HashShown, hash.Length)];

    private static double Median(IReadOnlyList<StepRow> steps) =>
        steps.Select(step => step.TokensPerSecond).Order().ElementAt(steps.Count / 2);
}
