using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs import</c>: brings in runs of a file or of another store.</summary>
internal static class RunsImport
{
    public static Command Create()
    {
        var path = new Argument<string>("path")
        {
            Description = "A file that export or backup wrote, or the folder of another store.",
        };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "import",
            "Import runs; existing runs are left unchanged.\n\nExample:\n  dotnet memopt runs import best.zip"
        )
        {
            path,
            store,
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                var from = parsed.GetValue(path)!;
                if (!File.Exists(from) && !Directory.Exists(from))
                    throw new UserFault(
                        "There is nothing to import.",
                        found: $"no file or folder {Path.GetFullPath(from)}"
                    );
                using var runs = CurrentProject.Store(parsed.GetValue(store), create: true);
                var imported = runs.Import(from, CurrentProject.Artifacts(parsed.GetValue(store)));
                if (parsed.GetValue(json))
                    Shell.Print(imported);
                else
                    Shell.Progress.WriteLine(
                        $"{imported.Runs.Count} runs brought in, {imported.Known} were here, "
                            + $"{imported.Artifacts} artifacts"
                    );
                return 0;
            }
        );
        return command;
    }
}
