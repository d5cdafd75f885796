using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>run --dry-run</c>: all of a run up to its plan, without the weights and without libtorch: every row is
/// read, nothing is trained or recorded.</summary>
internal static class DryRun
{
    /// <summary>Shows what would be trained; a fault where a run would have one before its first step.</summary>
    /// <param name="config">The config, with what the command line changed.</param>
    /// <param name="backend">The backend asked for, or null.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="json">Whether the result is JSON.</param>
    /// <param name="stop">Ends a download or the reading.</param>
    public static int Show(ProjectConfig config, string? backend, bool offline, bool json, CancellationToken stop)
    {
        var watcher = new ConsoleObserver();
        var source = ModelSource.Parse(config.Settings.Model.Source, config.Folder);
        var folder = PullCommand.FetchText(source, config.Settings.Model.Revision, offline, stop).Folder;
        var spec = ModelSpec.Read(folder);
        config = PullCommand.FetchData(config, offline, stop);
        var text = new ChatEncoder(folder, Trainer.Recipes.FineTuneRecipe.EndOfTurn(spec));
        Dataset? Read(DataRole role)
        {
            var reports = new DataReports(
                note => watcher.Stage(StageNames.Data, note),
                (done, total) => watcher.Progress("tokenizing, MiB", done >> 20, total >> 20)
            );
            var data = Dataset.Load(config, text, role, reports, stop);
            data?.EnsureVocabulary(spec.VocabSize);
            return data;
        }
        var (rows, eval) = (Read(DataRole.Train)!, Read(DataRole.Eval));
        var (device, where) = PlanCommand.Device(config.Settings, onCpu: backend == "cpu");
        var length = Batches.Padded(config.Settings.Data.Packing ? config.Settings.Data.MaxLength : rows.Longest);
        var plan = MemoryPlan.For(
            config.Settings,
            spec,
            device,
            length,
            eval is null ? 0 : Batches.Padded(eval.Longest)
        );
        var steps = new Batches(
            rows.Rows,
            config.Settings.Data,
            config.Settings.Train,
            plan.Rung.MicroBatch
        ).TotalSteps;
        var fault = plan.Fits
            ? null
            : PlanCommand.Fault(plan, Strategies.Of(config.Settings, spec, device, length, 1), device, where, length);
        if (json && fault is null)
        {
            Shell.Print(
                new
                {
                    steps,
                    rows = rows.Rows.Count,
                    tokens = rows.Tokens,
                    trained = rows.TargetCount,
                    longest = rows.Longest,
                    evalRows = eval?.Rows.Count ?? 0,
                    peakBytes = plan.PeakBytes,
                    hostBytes = plan.HostBytes,
                    microBatch = plan.Rung.MicroBatch,
                    chosen = plan.Rung.ToString(),
                    output = ProjectPaths.Output(config.File),
                }
            );
        }
        else if (!json)
        {
            var console = Shell.Output;
            console.WriteLine(
                $"{spec.ModelType}, {spec.Parameters:N0} parameters; {where}, {LedgerTable.Size(device.FreeBytes ?? 0)}"
            );
            console.WriteLine($"data: {rows.Summary(config.Settings.Data)}");
            if (eval is not null)
                console.WriteLine($"evaluation data: {eval.Summary(config.Settings.Data)}");
            console.WriteLine(
                $"{steps:N0} steps of {config.Settings.Train.BatchSize} sequences; "
                    + $"{PlanCommand.Chosen(config.Settings, plan)}"
            );
            console.Write(LedgerTable.Of(plan.Rows, measured: false));
            console.WriteLine("Nothing was trained.");
        }
        return fault is null ? 0 : throw fault;
    }
}
