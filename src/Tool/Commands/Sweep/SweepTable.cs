using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.Sweeps;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary>The combinations of a sweep and the best of them, for people.</summary>
internal static class SweepTable
{
    public static void Show(LoadedSweep sweep, List<SweepChild> children, SweepChild? best)
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
        if (best is null)
            return;
        Shell.Output.WriteLine(
            $"best: {best.Number}  {sweep.Combinations[best.Number - 1]}  {sweep.Sweep.Metric} "
                + $"{RunsCommand.Brief(best.Value)}"
        );
        Shell.Output.WriteLine($"      {Path.Combine(best.Folder, "adapter")}");
    }
}
