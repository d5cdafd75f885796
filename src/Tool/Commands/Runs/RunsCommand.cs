using System.CommandLine;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer;
using Spectre.Console;

namespace Memopt.Tool.Commands.Runs;

/// <summary><c>runs</c>: what was trained. Its commands stand in this folder; <c>show</c> is here.</summary>
internal static class RunsCommand
{
    public static Command Create()
    {
        return new Command("runs", "Query past runs and look after their store.\n\nExample:\n  dotnet memopt runs list\n  dotnet memopt runs show 261124")
        {
            RunsList.Create(), Show(), RunsCompare.Compare(), RunsCompare.Diff(), RunsTail.Create(),
            RunsUpkeep.Doctor(), RunsUpkeep.Backup(), RunsUpkeep.Export(), RunsUpkeep.Import(), RunsUpkeep.Collect(),
        };
    }

    public static Option<string?> StoreOption() => new("--store") { Description = "Folder of the run store; that of memopt.json here when left out." };

    /// <summary>A run that must be there.</summary>
    public static Run Need(LiteRunStore runs, string id) => runs.Get(id) ?? throw new UserFault($"There is no run {id}.", next: "dotnet memopt runs list");

    /// <summary>A value in few characters.</summary>
    public static string Brief(object? value) => value switch
    {
        null => "–",
        double number => number.ToString("G5", System.Globalization.CultureInfo.InvariantCulture),
        DateTimeOffset time => time.ToString("yyyy-MM-dd HH:mm"),
        var other => other.ToString()!,
    };

    private static Command Show()
    {
        var id = new Argument<string>("run") { Description = "Id of the run, or the start of it." };
        var (store, json) = (StoreOption(), Shell.JsonOption());
        var command = new Command("show", "Show one run: config, memory estimated and measured, steps, result.\n\nExample:\n  dotnet memopt runs show 261124") { id, store, json };
        command.SetAction(parsed => Shell.Guard(parsed.GetValue(json), () =>
        {
            using var runs = Workplace.Store(parsed.GetValue(store));
            var run = Need(runs, parsed.GetValue(id)!);
            var steps = runs.Steps(run.Start.Id);
            if (parsed.GetValue(json))
            {
                Shell.Print(RunView.Of(run, runs) with { Steps = steps });
                return 0;
            }
            var (evals, events) = (runs.Evals(run.Start.Id), runs.Events(run.Start.Id));
            var console = Shell.Output;
            console.MarkupLine($"[bold]run {Markup.Escape(run.Start.Id)}[/]  {Spelled(run.Status)}{(run.Reason is null ? "" : Markup.Escape($" ({run.Reason})"))}");
            var facts = new Grid().AddColumn().AddColumn();
            void Fact(string name, string? value) => facts.AddRow(name, Markup.Escape(value ?? "–"));
            Fact("experiment", run.Start.Experiment);
            Fact("started", $"{run.Start.Started:u}{(run.Ended is { } ended ? $", took {ended - run.Start.Started:hh\\:mm\\:ss}" : "")}");
            Fact("commit", run.Start.GitCommit is { } commit ? commit[..Math.Min(12, commit.Length)] + (run.Start.GitDirty ? " (with changes)" : "") : null);
            if (run.Start.Parent is { } parent)
                Fact("parent", $"{parent.Id} ({parent.Kind})");
            if (run.Start.Overrides.Count > 0)
                Fact("set", string.Join("  ", run.Start.Overrides.Select(setting => $"{setting.Key}={setting.Value}")));
            foreach (var (name, hash) in run.Start.Hashes)
                Fact($"sha256 {name}", hash[..Math.Min(12, hash.Length)]);
            foreach (var (name, value) in run.Start.Environment)
                Fact(name, value);
            foreach (var artifact in run.Artifacts)
                Fact(artifact.Name, $"{artifact.Path}{(artifact.Path is not null && artifact.Place is not null ? ", " : "")}{artifact.Place} ({LedgerTable.Size(artifact.Bytes)}, {artifact.Hash[..12]})");
            console.Write(facts);
            // What a client of MLflow's interface logged has neither plan nor steps of a training.
            if (run.Ledger.Count > 0)
                console.Write(LedgerTable.Of(run.Ledger, run.Ledger.Any(row => row.Measured is not null)));
            if (steps.Count > 0 && run.Start.TotalSteps > 0)
                console.WriteLine($"steps {steps[0].Step}–{steps[^1].Step} of {run.Start.TotalSteps}, loss {steps[0].Loss:F4} → {steps[^1].Loss:F4}, median {Median(steps):N0} tokens/s");
            foreach (var happened in events)
                console.WriteLine($"{happened.Time:u}  after step {happened.Step}  {happened.Kind}: {happened.Text}");
            foreach (var (name, metric) in run.Metrics)
                console.WriteLine($"{name,-24} last {Brief(metric.Last)} at {metric.LastStep}, least {Brief(metric.Min)} at {metric.MinStep}, most {Brief(metric.Max)} at {metric.MaxStep}");
            foreach (var eval in evals)
                console.WriteLine($"evaluation after step {eval.Step}: " + string.Join(", ", eval.Values.Select(v => $"{v.Key} {v.Value:G5}")));
            return 0;
        }));
        return command;
    }

    public static string Spelled(RunStatus status) => Spelled(status.ToString().ToLowerInvariant());

    public static string Spelled(string status) => status switch
    {
        "finished" => "[green]finished[/]",
        "failed" => "[red]failed[/]",
        "running" => "[blue]running[/]",
        _ => status,
    };

    private static double Median(IReadOnlyList<StepRow> steps) => steps.Select(step => step.TokensPerSecond).Order().ElementAt(steps.Count / 2);
}
