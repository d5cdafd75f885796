using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs rm</c>: removes runs that are named or that a filter matches.</summary>
internal sealed class RunsRemove
{
    /// <summary>What a run linked to, which stays.</summary>
    private sealed record Staying(string RunId, string Name, string Hash, long Bytes, IEnumerable<string> NamedBy);

    private readonly Argument<string[]> ids = new("runs")
    {
        Description = "Ids of the runs, prefixes of them, or latest.",
        Arity = ArgumentArity.ZeroOrMore,
    };
    private readonly Option<string?> filter = new("--filter")
    {
        Description = "Remove the runs that match, as in runs list.",
    };
    private readonly Option<bool> yes = new("--yes", "-y") { Description = "Remove without a question." };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new RunsRemove().Declare();

    private Command Declare()
    {
        var command = new Command(
            "rm",
            "Remove runs: their records, points, logs and checkpoints. Artifacts and registered adapters stay; "
                + "runs gc removes artifacts that nothing names.\n\nExample:\n  dotnet memopt runs rm 261124a\n  "
                + "dotnet memopt runs rm --filter \"status = 'failed'\" --yes"
        )
        {
            ids,
            filter,
            yes,
            store,
            json,
        };
        command.Validators.Add(result =>
        {
            if (result.GetValue(ids) is { Length: > 0 } == !string.IsNullOrWhiteSpace(result.GetValue(filter)))
                result.AddError("Either runs are named or --filter says which.");
        });
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        using var runs = CurrentProject.Store(parsed.GetValue(store));
        var leaving = Chosen(runs, parsed.GetValue(ids)!, parsed.GetValue(filter));
        var checkpoints = RunCheckpoints.Of(parsed.GetValue(store), [.. leaving.Select(run => run.Start.Id)]).ToList();
        var staying = Artifacts(runs, CurrentProject.Artifacts(parsed.GetValue(store)), leaving);
        if (leaving.Count > 0 && !parsed.GetValue(yes) && !Agreed(leaving, parsed.GetValue(json)))
            return 1;
        // What a run left before the run itself: after a kill it is found again.
        checkpoints.ForEach(folder => Directory.Delete(folder, recursive: true));
        leaving.ForEach(run => runs.Remove(run.Start.Id));
        if (parsed.GetValue(json))
            Shell.Print(
                new
                {
                    runs = leaving.Select(run => run.Start.Id),
                    checkpoints,
                    staying,
                }
            );
        else
            Tell(leaving, checkpoints.Count, staying);
        return 0;
    }

    private static List<Run> Chosen(LiteRunStore runs, string[] ids, string? filter)
    {
        var chosen =
            ids.Length > 0
                ? ids.Select(id => RunsCommand.Need(runs, id)).DistinctBy(run => run.Start.Id).ToList()
                : [.. runs.Find(new RunQuery { Filter = filter, Limit = int.MaxValue - 1 }).Runs];
        return chosen.Find(run => run.Status == RunStatus.Running) is not { } busy
            ? chosen
            : throw new UserFault(
                $"Run {busy.Start.Id} is running; nothing was removed.",
                next: "stop it first, or leave it out: --filter \"… and status != 'running'\""
            );
    }

    private static List<Staying> Artifacts(LiteRunStore runs, LocalArtifacts artifacts, List<Run> leaving)
    {
        var gone = leaving.Select(run => run.Start.Id).ToHashSet();
        var versions = new AdapterRegistry(artifacts.Folder)
            .List()
            .SelectMany(adapter =>
                adapter.Versions.Select(version => (version.Hash, By: $"{adapter.Name}@{version.Number}"))
            );
        var others = runs.Find(new RunQuery { Limit = int.MaxValue - 1, Deleted = null })
            .Runs.Where(run => !gone.Contains(run.Start.Id))
            .SelectMany(run => run.Artifacts.Select(link => (link.Hash, By: $"run {run.Start.Id}")));
        var named = versions.Concat(others).ToLookup(one => one.Hash, one => one.By);
        return
        [
            .. leaving.SelectMany(run =>
                run.Artifacts.Select(link => new Staying(
                    run.Start.Id,
                    link.Name,
                    link.Hash,
                    link.Bytes,
                    named[link.Hash]
                ))
            ),
        ];
    }

    /// <summary>Asks on a terminal; elsewhere nobody answers, and --yes is needed.</summary>
    private static bool Agreed(List<Run> leaving, bool json)
    {
        if (json || Console.IsInputRedirected || Console.IsErrorRedirected)
            throw new UserFault(
                $"{Count(leaving.Count, "run")} would be removed, and --yes was not given.",
                found: string.Join(", ", leaving.Take(5).Select(run => run.Start.Id))
                    + (leaving.Count > 5 ? ", …" : ""),
                next: "add --yes"
            );
        foreach (var run in leaving.Take(20))
            Shell.Progress.WriteLine(
                $"{run.Start.Id}  {run.Start.Started:yyyy-MM-dd}  {run.Status.ToString().ToLowerInvariant()}  "
                    + $"{run.Start.Experiment}"
            );
        Console.Error.Write(
            $"{(leaving.Count > 20 ? $"and {leaving.Count - 20} more. " : "")}Remove {Count(leaving.Count, "run")}? "
                + "[y/N] "
        );
        return Console.In.ReadLine()?.Trim() is "y" or "Y" or "yes";
    }

    private static void Tell(List<Run> leaving, int checkpoints, List<Staying> staying)
    {
        foreach (var one in staying)
            Shell.Output.WriteLine(
                $"stays  {one.Hash[..Math.Min(12, one.Hash.Length)]}  {LedgerTable.Size(one.Bytes)}  {one.Name} "
                    + $"of run {one.RunId}{(one.NamedBy.Any() ? $", named by {string.Join(", ", one.NamedBy)}" : "")}"
            );
        Shell.Progress.WriteLine($"Removed {Count(leaving.Count, "run")}, {Count(checkpoints, "checkpoint")}.");
        if (staying.Any(one => !one.NamedBy.Any()))
            Shell.Progress.WriteLine("next:  dotnet memopt runs gc --apply removes the artifacts that nothing names");
    }

    private static string Count(int number, string what) => $"{number} {what}{(number == 1 ? "" : "s")}";
}
