using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs compare</c>: runs side by side.</summary>
internal sealed class RunsCompare
{
    private readonly Argument<string[]> ids = new("runs")
    {
        Description = "Ids of the runs, prefixes of them, or latest.",
        Arity = new(2, 12),
    };
    private readonly Option<string> metric = new("--metric")
    {
        Description = "The metric to draw.",
        DefaultValueFactory = _ => "loss",
    };
    private readonly Option<bool> log = new("--log") { Description = "Draw on a logarithmic scale." };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new RunsCompare().Declare();

    private Command Declare()
    {
        var command = new Command(
            "compare",
            "Compare runs: settings that differ, metrics, curves.\n\nExample:\n  dotnet memopt runs compare "
                + "261124a 261124b --metric eval_loss"
        )
        {
            ids,
            metric,
            log,
            store,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        using var runs = CurrentProject.Store(parsed.GetValue(store));
        var chosen = Chosen(runs, parsed.GetValue(ids)!);
        var name = parsed.GetValue(metric)!;
        var curves = chosen.Select(run => runs.Points(run.Start.Id, name)).ToList();
        var settings = DifferingSettings(chosen);
        if (parsed.GetValue(json))
        {
            Print(chosen, curves, settings);
            return 0;
        }
        RunLetters.Show(chosen);
        Shell.Output.Write(Table(chosen, settings));
        if (curves.Any(curve => curve.Count > 0))
        {
            Shell.Output.WriteLine(name);
            var named = chosen.Zip(curves, (run, curve) => (run.Start.Id, curve)).ToList();
            Shell.Output.Write(new Chart(named, parsed.GetValue(log)));
        }
        return 0;
    }

    private static List<Run> Chosen(LiteRunStore runs, string[] ids)
    {
        var chosen = ids.Select(id => RunsCommand.Need(runs, id)).ToList();
        return chosen.GroupBy(run => run.Start.Id).FirstOrDefault(same => same.Count() > 1) is not { } twice
            ? chosen
            : throw new UserFault($"Run {twice.Key} is named twice.", next: "dotnet memopt runs list");
    }

    private static List<string> DifferingSettings(List<Run> chosen) =>
        chosen
            .SelectMany(run => run.Params.Keys)
            .Distinct()
            .Order(StringComparer.Ordinal)
            .Where(key => chosen.Select(run => run.Params.GetValueOrDefault(key)).Distinct().Count() > 1)
            .ToList();

    private static void Print(List<Run> chosen, List<IReadOnlyList<Point>> curves, List<string> settings) =>
        Shell.Print(
            chosen.Zip(
                curves,
                (run, curve) =>
                    new
                    {
                        runId = run.Start.Id,
                        status = run.Status,
                        @params = settings.ToDictionary(key => key, key => run.Params.GetValueOrDefault(key)),
                        metrics = run.Metrics,
                        curve = curve.Select(point => new { step = point.Step, value = point.Value }),
                    }
            )
        );

    private static FittedTable Table(List<Run> chosen, List<string> settings)
    {
        var table = new FittedTable("--json").AddColumn("", breaks: true);
        foreach (var letter in RunLetters.Of(chosen))
            table.AddColumn(letter, breaks: true);
        Row("status", run => run.Status.ToString().ToLowerInvariant());
        Row("step", run => $"{run.Step} / {run.Start.TotalSteps}");
        foreach (var key in settings)
            Row(key, run => run.Params.GetValueOrDefault(key));
        foreach (var key in chosen.SelectMany(run => run.Metrics.Keys).Distinct())
            Row(key, run => run.Metrics.TryGetValue(key, out var known) ? Text(known) : null);
        return table;

        void Row(string title, Func<Run, string?> cell) =>
            table.AddRow([Markup.Escape(title), .. chosen.Select(run => Markup.Escape(cell(run) ?? "–"))]);
    }

    private static string Text(MetricSummary metric) =>
        $"{RunsCommand.Brief(metric.Last)}  (min {RunsCommand.Brief(metric.Min)}, max {RunsCommand.Brief(metric.Max)})";
}
