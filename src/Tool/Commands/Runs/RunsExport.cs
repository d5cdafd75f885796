using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs backup</c> and <c>runs export</c>: all runs, or some, into one file.</summary>
internal sealed class RunsExport
{
    private readonly Argument<string> file = new("file") { Description = "The file to write, a zip." };
    private readonly Argument<string[]> ids = new("runs") { Description = "Ids of the runs, or prefixes of them." };
    private readonly Option<bool> with = new("--artifacts") { Description = "Also write the runs' artifacts." };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command CreateBackup() => new RunsExport().DeclareBackup();

    public static Command Create() => new RunsExport().Declare();

    private Command DeclareBackup()
    {
        var command = new Command(
            "backup",
            "Write all runs and their artifacts into one file.\n\nExample:\n  dotnet memopt runs backup "
                + "runs-2026-11-25.zip"
        )
        {
            file,
            store,
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                using var runs = CurrentProject.Store(parsed.GetValue(store));
                return Write(parsed, runs, chosen: null, artifacts: true);
            }
        );
        return command;
    }

    private Command Declare()
    {
        var command = new Command(
            "export",
            "Write the named runs into one file, for another store.\n\nExample:\n  dotnet memopt runs export best.zip "
                + "261124a 261124b --artifacts"
        )
        {
            file,
            store,
            json,
            ids,
            with,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                using var runs = CurrentProject.Store(parsed.GetValue(store));
                return Write(parsed, runs, Chosen(runs, parsed.GetValue(ids)!), parsed.GetValue(with));
            }
        );
        return command;
    }

    private static List<string> Chosen(LiteRunStore runs, string[] ids)
    {
        var chosen = ids.Select(id => RunsCommand.Need(runs, id).Start.Id).ToList();
        return chosen.Count > 0
            ? chosen
            : throw new UserFault(
                "No run was named.",
                next: "name runs, or write all of them: dotnet memopt runs backup FILE"
            );
    }

    private int Write(ParseResult parsed, LiteRunStore runs, List<string>? chosen, bool artifacts)
    {
        var path = parsed.GetValue(file)!;
        var count = runs.Export(path, chosen, artifacts ? CurrentProject.Artifacts(parsed.GetValue(store)) : null);
        if (parsed.GetValue(json))
            Shell.Print(new { file = path, runs = count });
        else
            Shell.Progress.WriteLine($"{count} runs in {path}; bring them in with: dotnet memopt runs import {path}");
        return 0;
    }
}
