using System.CommandLine;
using Memopt.Core;
using Memopt.Tracking;

namespace Memopt.Tool.Commands;

/// <summary><c>runs</c>: what was trained. Its commands stand in this folder.</summary>
internal static class RunsCommand
{
    public static Command Create()
    {
        return new Command(
            "runs",
            "Query past runs and maintain their store.\n\nExample:\n  dotnet memopt runs list\n  dotnet memopt "
                + "runs show"
        )
        {
            RunsList.Create(),
            RunsShow.Create(),
            RunsCompare.Create(),
            RunsDiff.Create(),
            RunsTail.Create(),
            RunsRemove.Create(),
            RunsDoctor.Create(),
            RunsExport.CreateBackup(),
            RunsExport.Create(),
            RunsImport.Create(),
            RunsCollect.Create(),
        };
    }

    /// <summary>The word for the newest run.</summary>
    private const string Latest = "latest";

    public static Option<string?> StoreOption() =>
        new("--store")
        {
            Description =
                "Folder of the run store; by default the store of the nearest memopt.json, here or in a parent folder.",
        };

    public static Argument<string?> RunArgument() =>
        new("run")
        {
            Description = "The run's id, a prefix of it, or latest; the default is the newest run.",
            Arity = ArgumentArity.ZeroOrOne,
        };

    /// <summary>A run that must be there: by its id or the start of it, or the newest.</summary>
    /// <param name="runs">Where.</param>
    /// <param name="id">The id; null, or "latest" when no run has that id, is the run that began last.</param>
    public static Run Need(LiteRunStore runs, string? id)
    {
        var named =
            id is null ? null
            : id == Latest ? runs.GetExact(id)
            : runs.Get(id) ?? throw new UserFault($"There is no run {id}.", next: "dotnet memopt runs list");
        if (named is not null)
            return named;
        var found = runs.Find(new RunQuery { Limit = 1, Patience = Patience });
        TellWaiting(found.Waiting);
        return found.Runs is [var newest]
            ? newest
            : throw new UserFault("There is no run yet.", next: "dotnet memopt run") { Failed = true };
    }

    /// <summary>How long a person at a terminal waits for runs that are recorded and still to be taken in. A program
    /// gets the whole answer, however long it takes.</summary>
    public static TimeSpan? Patience => Console.IsOutputRedirected ? null : TimeSpan.FromSeconds(2);

    public static void TellWaiting(int runs)
    {
        if (runs > 0)
            Console.Error.WriteLine($"{runs} more runs are recorded and still being taken in; ask again to see them.");
    }

    /// <summary>A value in few characters.</summary>
    public static string Brief(object? value) =>
        value switch
        {
            null => "–",
            double number => number.ToString("G5", System.Globalization.CultureInfo.InvariantCulture),
            DateTimeOffset time => time.ToString("yyyy-MM-dd HH:mm"),
            var other => other.ToString()!,
        };

    public static string Spelled(RunStatus status) => Spelled(status.ToString().ToLowerInvariant());

    public static string Spelled(string status) =>
        status switch
        {
            "finished" => "[green]finished[/]",
            "failed" => "[red]failed[/]",
            "running" => "[blue]running[/]",
            _ => status,
        };
}
