using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>run --dry-run</c>: all of a run up to its plan, without the weights and without libtorch: every row is
/// read, nothing is trained or recorded.</summary>
internal sealed class DryRun
{
    private readonly ProjectConfig config;
    private readonly Dataset rows;
    private readonly Dataset? eval;
    private readonly TargetPlan planned;
    private readonly int steps;

    /// <summary>Reads all that a run reads before its first step.</summary>
    /// <param name="given">The config, with what the command line changed.</param>
    /// <param name="backend">The backend asked for, or null.</param>
    /// <param name="offline">Whether no server is asked.</param>
    /// <param name="stop">Ends a download or the reading.</param>
    public DryRun(ProjectConfig given, string? backend, bool offline, CancellationToken stop)
    {
        var source = ModelSource.Parse(given.Settings.Model.Source, given.Folder);
        var folder = PullCommand.FetchText(source, given.Settings.Model.Revision, offline, stop).Folder;
        var spec = ModelSpec.Read(folder);
        var observer = new ConsoleObserver();
        config = PullCommand.FetchData(given, offline, observer, stop);
        var text = new ChatEncoder(folder, spec.EndOfTurn);
        var reports = observer.DataReports();
        (rows, eval) = (Read(DataRole.Train)!, Read(DataRole.Eval));
        planned = new(
            config.Settings,
            spec,
            PlanTarget.Here(config.Settings, onCpu: backend == "cpu"),
            Batches.Padded(config.Settings.Data.Packing ? config.Settings.Data.MaxLength : rows.Longest),
            eval is null ? 0 : Batches.Padded(eval.Longest)
        );
        var batches = new Batches(rows.Rows, config.Settings.Data, config.Settings.Train, planned.Plan.Rung.MicroBatch);
        steps = batches.TotalSteps;

        Dataset? Read(DataRole role)
        {
            var data = Dataset.Load(config, text, role, reports, stop);
            data?.EnsureVocabulary(spec.VocabSize);
            return data;
        }
    }

    /// <summary>Shows what would be trained; a fault where a run would have one before its first step.</summary>
    public int Show(bool json)
    {
        var fault = planned.Fault();
        if (json && fault is null)
            Print();
        else if (!json)
            Write();
        return fault is null ? 0 : throw fault;
    }

    private void Print() =>
        Shell.Print(
            new
            {
                steps,
                rows = rows.Rows.Count,
                tokens = rows.Tokens,
                trained = rows.TargetCount,
                longest = rows.Longest,
                evalRows = eval?.Rows.Count ?? 0,
                peakBytes = planned.Plan.PeakBytes,
                hostBytes = planned.Plan.HostBytes,
                microBatch = planned.Plan.Rung.MicroBatch,
                chosen = planned.Plan.Rung.ToString(),
                output = ProjectPaths.Output(config.File),
            }
        );

    private void Write()
    {
        var (console, spec, target) = (Shell.Output, planned.Spec, planned.Target);
        console.WriteLine(
            $"{spec.ModelType}, {spec.Parameters:N0} parameters; {target.Name}, "
                + LedgerTable.Size(target.Device.FreeBytes ?? 0)
        );
        console.WriteLine($"data: {rows.Summary(config.Settings.Data)}");
        if (eval is not null)
            console.WriteLine($"evaluation data: {eval.Summary(config.Settings.Data)}");
        console.WriteLine($"{steps:N0} steps of {config.Settings.Train.BatchSize} sequences; {planned.Chosen}");
        console.Write(LedgerTable.Of(planned.Plan.Rows, measured: false));
        console.WriteLine("Nothing was trained.");
    }
}
