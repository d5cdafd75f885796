using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs list|show</c>: what was trained.</summary>
internal static class RunsCommand
{
    public static Command Create()
    {
        var command = new Command("runs", "Query past runs.\n\nExample:\n  dotnet memopt runs list\n  dotnet memopt runs show 261124") { List(), Show() };
        return command;
    }

    private static Option<string?> StoreOption() => new("--store") { Description = "Folder of the run store; that of memopt.json here when left out." };

    private static Command List()
    {
        var (store, json) = (StoreOption(), Shell.JsonOption());
        var limit = new Option<int>("--limit") { Description = "How many, newest first.", DefaultValueFactory = _ => 50 };
        var experiment = new Option<string?>("--experiment") { Description = "Only this experiment." };
        var status = new Option<RunStatus?>("--status") { Description = "Only runs that stand so." };
        var command = new Command("list", "List runs, newest first.") { store, experiment, status, limit, json };
        command.SetAction(parsed => Shell.Guard(parsed.GetValue(json), () =>
        {
            using var runs = Workplace.Store(parsed.GetValue(store));
            var found = runs.Find(new RunQuery { Experiment = parsed.GetValue(experiment), Status = parsed.GetValue(status), Limit = parsed.GetValue(limit) }).Runs;
            if (parsed.GetValue(json))
            {
                Shell.Print(found.Select(Summary));
                return 0;
            }
            var table = new Table().Border(TableBorder.Simple).AddColumns("run", "experiment", "status", "started", "step", "loss", "eval loss", "accuracy");
            foreach (var run in found)
            {
                table.AddRow(run.Start.Id, Markup.Escape(run.Start.Experiment), Spelled(run.Status), run.Start.Started.ToString("yyyy-MM-dd HH:mm"), $"{run.Step} / {run.Start.TotalSteps}",
                    run.Loss is { } loss ? $"{loss:F4}" : "–", run.Eval.TryGetValue("loss", out var el) ? $"{el:F4}" : "–", run.Eval.TryGetValue("accuracy", out var a) ? $"{a:P1}" : "–");
            }
            Shell.Output.Write(table);
            return 0;
        }));
        return command;
    }

    private static Command Show()
    {
        var id = new Argument<string>("run") { Description = "Id of the run, or the start of it." };
        var (store, json) = (StoreOption(), Shell.JsonOption());
        var command = new Command("show", "Show one run: config, memory estimated and measured, steps, result.") { id, store, json };
        command.SetAction(parsed => Shell.Guard(parsed.GetValue(json), () =>
        {
            using var runs = Workplace.Store(parsed.GetValue(store));
            var run = runs.Get(parsed.GetValue(id)!)
                ?? throw new UserFault($"There is no run {parsed.GetValue(id)}.", next: "dotnet memopt runs list");
            var (steps, evals, events) = (runs.Steps(run.Start.Id), runs.Evals(run.Start.Id), runs.Events(run.Start.Id));
            if (parsed.GetValue(json))
            {
                Shell.Print(new
                {
                    runId = run.Start.Id,
                    experiment = run.Start.Experiment,
                    status = run.Status,
                    reason = run.Reason,
                    started = run.Start.Started,
                    ended = run.Ended,
                    totalSteps = run.Start.TotalSteps,
                    gitCommit = run.Start.GitCommit,
                    gitDirty = run.Start.GitDirty,
                    hashes = run.Start.Hashes,
                    environment = run.Start.Environment,
                    tags = run.Start.Tags,
                    config = JsonNode.Parse(run.Start.Config),
                    ledger = run.Ledger,
                    artifacts = run.Artifacts,
                    evals = evals.Select(e => new { step = e.Step, values = e.Values }),
                    events,
                    steps,
                });
                return 0;
            }
            var console = Shell.Output;
            console.MarkupLine($"[bold]run {run.Start.Id}[/]  {Spelled(run.Status)}{(run.Reason is null ? "" : Markup.Escape($" ({run.Reason})"))}");
            var facts = new Grid().AddColumn().AddColumn();
            void Fact(string name, string? value) => facts.AddRow(name, Markup.Escape(value ?? "–"));
            Fact("experiment", run.Start.Experiment);
            Fact("started", $"{run.Start.Started:u}{(run.Ended is { } ended ? $", took {ended - run.Start.Started:hh\\:mm\\:ss}" : "")}");
            Fact("commit", run.Start.GitCommit is { } commit ? commit[..Math.Min(12, commit.Length)] + (run.Start.GitDirty ? " (with changes)" : "") : null);
            foreach (var (name, value) in run.Start.Environment)
                Fact(name, value);
            foreach (var artifact in run.Artifacts)
                Fact(artifact.Name, $"{artifact.Path} ({LedgerTable.Size(artifact.Bytes)}, {artifact.Hash[..12]})");
            console.Write(facts);
            console.Write(LedgerTable.Of(run.Ledger, run.Ledger.Any(row => row.Measured is not null)));
            if (steps.Count > 0)
                console.WriteLine($"steps {steps[0].Step}–{steps[^1].Step} of {run.Start.TotalSteps}, loss {steps[0].Loss:F4} → {steps[^1].Loss:F4}, median {Median(steps):N0} tokens/s");
            foreach (var happened in events)
                console.WriteLine($"{happened.Time:u}  after step {happened.Step}  {happened.Kind}: {happened.Text}");
            foreach (var eval in evals)
                console.WriteLine($"evaluation after step {eval.Step}: " + string.Join(", ", eval.Values.Select(v => $"{v.Key} {v.Value:G5}")));
            return 0;
        }));
        return command;
    }

    private static object Summary(Run run) => new
    {
        runId = run.Start.Id,
        experiment = run.Start.Experiment,
        status = run.Status,
        started = run.Start.Started,
        ended = run.Ended,
        step = run.Step,
        totalSteps = run.Start.TotalSteps,
        loss = run.Loss,
        eval = run.Eval,
        tags = run.Start.Tags,
    };

    private static string Spelled(RunStatus status) => status switch
    {
        RunStatus.Finished => "[green]finished[/]",
        RunStatus.Failed => "[red]failed[/]",
        RunStatus.Running => "[blue]running[/]",
        var other => other.ToString().ToLowerInvariant(),
    };

    private static double Median(IReadOnlyList<StepRow> steps) => steps.Select(step => step.TokensPerSecond).Order().ElementAt(steps.Count / 2);
}
