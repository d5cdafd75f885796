using System.CommandLine;
using Memopt.Tool.Cli;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs gc</c>: removes runs, and artifacts that nothing names.</summary>
internal sealed class RunsCollect
{
    private readonly Option<string?> filter = new("--filter")
    {
        Description = "Remove the runs that match, as in runs list; without --filter and --older-than none.",
    };
    private readonly Option<int?> older = Shell.NumberOption<int>(
        "--older-than",
        "Only runs that began more than this number of days ago.",
        "from 0 to 36500 days",
        days => days is >= 0 and <= 36_500
    );
    private readonly Option<bool> apply = new("--apply") { Description = "Apply the changes (default: dry run)." };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new RunsCollect().Declare();

    private Command Declare()
    {
        filter.Validators.Add(result =>
        {
            if (result.Tokens.Any(token => string.IsNullOrWhiteSpace(token.Value)))
                result.AddError("--filter is empty.");
        });
        var command = new Command(
            "gc",
            "Remove runs, their checkpoints, their registered versions unless one of your aliases names them, and "
                + "artifacts that nothing names. Without --apply it only lists them.\n\n"
                + "Example:\n  dotnet memopt runs gc --filter \"status in ('failed', 'interrupted')\" --older-than 30"
        )
        {
            filter,
            older,
            apply,
            store,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        using var runs = CurrentProject.Store(parsed.GetValue(store));
        var collection = new RunCollection(runs, parsed.GetValue(store));
        collection.Choose(
            parsed.GetValue(filter),
            parsed.GetValue(older) is { } days ? TimeProvider.System.GetUtcNow().AddDays(-days) : null
        );
        if (parsed.GetValue(apply))
            collection.Apply();
        if (parsed.GetValue(json))
            Print(collection, parsed.GetValue(apply));
        else
            Show(collection, parsed.GetValue(apply));
        return 0;
    }

    private static void Print(RunCollection collection, bool applied) =>
        Shell.Print(
            new
            {
                applied,
                runs = collection.Runs.Select(run => run.Start.Id),
                checkpoints = collection.Checkpoints,
                versions = collection.Versions.Select(version => $"{version.Name}@{version.Number}"),
                artifacts = collection.Artifacts,
            }
        );

    private static void Show(RunCollection collection, bool applied)
    {
        foreach (var run in collection.Runs)
            Shell.Output.WriteLine(
                $"run         {run.Start.Id}  {run.Start.Started:yyyy-MM-dd}  "
                    + $"{run.Status.ToString().ToLowerInvariant()}  {run.Start.Experiment}"
            );
        foreach (var folder in collection.Checkpoints)
            Shell.Output.WriteLine($"checkpoint  {folder}");
        foreach (var version in collection.Versions)
            Shell.Output.WriteLine($"adapter     {version.Name}@{version.Number}");
        foreach (var hash in collection.Artifacts)
            Shell.Output.WriteLine($"artifact    {hash}");
        var (runs, artifacts) = (collection.Runs.Count, collection.Artifacts.Count);
        Shell.Progress.WriteLine(
            $"{(applied ? "Removed" : "Would remove")} {runs} runs, {collection.Checkpoints.Count} "
                + $"checkpoints, {artifacts} artifacts"
                + $"{(collection.Waits ? " (artifacts wait: a run is training)" : "")}"
                + $"{(applied || runs + artifacts == 0 ? "." : "; add --apply to do it.")}"
        );
    }
}
