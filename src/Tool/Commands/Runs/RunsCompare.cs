using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands.Runs;

/// <summary><c>runs compare</c> and <c>runs diff</c>: runs side by side, and what tells two apart.</summary>
internal static class RunsCompare
{
    public static Command Compare()
    {
        var ids = new Argument<string[]>("runs")
        {
            Description = "Ids of the runs or starts of them, or latest.",
            Arity = new(2, 12),
        };
        var metric = new Option<string>("--metric")
        {
            Description = "The metric whose curves are drawn.",
            DefaultValueFactory = _ => "loss",
        };
        var log = new Option<bool>("--log") { Description = "Draw on a logarithmic scale." };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "compare",
            "Runs side by side: settings that differ, metrics, curves.\n\nExample:\n  dotnet memopt runs compare "
                + "261124a 261124b --metric eval_loss"
        )
        {
            ids,
            metric,
            log,
            store,
            json,
        };
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    using var runs = CurrentProject.Store(parsed.GetValue(store));
                    var chosen = parsed.GetValue(ids)!.Select(id => RunsCommand.Need(runs, id)).ToList();
                    if (chosen.GroupBy(run => run.Start.Id).FirstOrDefault(same => same.Count() > 1) is { } twice)
                        throw new UserFault($"Run {twice.Key} is named twice.", next: "dotnet memopt runs list");
                    var name = parsed.GetValue(metric)!;
                    var curves = chosen.Select(run => runs.Points(run.Start.Id, name)).ToList();
                    var settings = chosen
                        .SelectMany(run => run.Params.Keys)
                        .Distinct()
                        .Order(StringComparer.Ordinal)
                        .Where(key => chosen.Select(run => run.Params.GetValueOrDefault(key)).Distinct().Count() > 1)
                        .ToList();
                    if (parsed.GetValue(json))
                    {
                        Shell.Print(
                            chosen.Zip(
                                curves,
                                (run, curve) =>
                                    new
                                    {
                                        runId = run.Start.Id,
                                        status = run.Status,
                                        @params = settings.ToDictionary(
                                            key => key,
                                            key => run.Params.GetValueOrDefault(key)
                                        ),
                                        metrics = run.Metrics,
                                        curve = curve.Select(point => new { step = point.Step, value = point.Value }),
                                    }
                            )
                        );
                        return 0;
                    }
                    Legend(chosen);
                    var table = new FittedTable("--json").AddColumn("", breaks: true);
                    foreach (var letter in Letters(chosen))
                        table.AddColumn(letter, breaks: true);
                    void Row(string title, Func<Run, string?> cell) =>
                        table.AddRow([Markup.Escape(title), .. chosen.Select(run => Markup.Escape(cell(run) ?? "–"))]);
                    Row("status", run => run.Status.ToString().ToLowerInvariant());
                    Row("step", run => $"{run.Step} / {run.Start.TotalSteps}");
                    foreach (var key in settings)
                        Row(key, run => run.Params.GetValueOrDefault(key));
                    foreach (var key in chosen.SelectMany(run => run.Metrics.Keys).Distinct())
                        Row(
                            key,
                            run =>
                                run.Metrics.TryGetValue(key, out var known)
                                    ? $"{RunsCommand.Brief(known.Last)}  (min {RunsCommand.Brief(known.Min)}, max "
                                        + $"{RunsCommand.Brief(known.Max)})"
                                    : null
                        );
                    Shell.Output.Write(table);
                    if (curves.Any(curve => curve.Count > 0))
                    {
                        Shell.Output.WriteLine(name);
                        Shell.Output.Write(
                            new Chart(
                                chosen.Zip(curves, (run, curve) => (run.Start.Id, curve)).ToList(),
                                parsed.GetValue(log)
                            )
                        );
                    }
                    return 0;
                }
            )
        );
        return command;
    }

    /// <summary>Ids do not fit above columns of a narrow table: letters stand there, as in the chart.</summary>
    private static void Legend(IReadOnlyList<Run> runs)
    {
        foreach (var (letter, run) in Letters(runs).Zip(runs))
            Shell.Output.WriteLine($"{letter}  {run.Start.Id}");
    }

    private static IEnumerable<string> Letters(IReadOnlyList<Run> runs) =>
        runs.Select((_, place) => $"{(char)('a' + place)}");

    public static Command Diff()
    {
        var (a, b) = (
            new Argument<string>("a") { Description = "One run: its id, the start of it, or latest." },
            new Argument<string>("b")
            {
                Description = "The other; the newest when left out.",
                Arity = ArgumentArity.ZeroOrOne,
            }
        );
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "diff",
            "What tells two runs apart: config, hashes, code, environment, memory, result.\n\nExample:\n  dotnet "
                + "memopt runs diff 261124a 261124b"
        )
        {
            a,
            b,
            store,
            json,
        };
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    using var runs = CurrentProject.Store(parsed.GetValue(store));
                    var (one, other) = (
                        RunsCommand.Need(runs, parsed.GetValue(a)),
                        RunsCommand.Need(runs, parsed.GetValue(b))
                    );
                    var differences = RunDiff.Between(one, other);
                    if (parsed.GetValue(json))
                    {
                        Shell.Print(differences);
                        return 0;
                    }
                    if (differences.Count == 0)
                    {
                        Shell.Output.WriteLine("The runs do not differ.");
                        return 0;
                    }
                    Legend([one, other]);
                    var table = new FittedTable("--json")
                        .AddColumn("", breaks: true)
                        .AddColumn("a", breaks: true)
                        .AddColumn("b", breaks: true);
                    foreach (var section in differences.GroupBy(difference => difference.Section))
                    {
                        table.AddRow($"[bold]{section.Key}[/]", "", "");
                        foreach (var difference in section)
                            table.AddRow(
                                Markup.Escape(difference.Key),
                                Markup.Escape(difference.A ?? "–"),
                                Markup.Escape(difference.B ?? "–")
                            );
                    }
                    Shell.Output.Write(table);
                    return 0;
                }
            )
        );
        return command;
    }
}
