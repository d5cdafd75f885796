using System.CommandLine;
using Memopt.Tool.Cli;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs doctor</c>: reads the whole store and says what is wrong with it.</summary>
internal static class RunsDoctor
{
    public static Command Create()
    {
        var repair = new Option<bool>("--repair")
        {
            Description = "Repair damage; replaced files stay under another name.",
        };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "doctor",
            "Read the whole store and report its problems.\n\nExample:\n  dotnet memopt runs doctor --repair"
        )
        {
            repair,
            store,
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                using var runs = CurrentProject.Store(parsed.GetValue(store));
                var problems = runs.Check(parsed.GetValue(repair));
                if (parsed.GetValue(json))
                    Shell.Print(problems);
                foreach (var problem in parsed.GetValue(json) ? [] : problems)
                    Shell.Output.WriteLine($"{problem.File}: {problem.Text}{(problem.Repaired ? " (repaired)" : "")}");
                if (problems.Count == 0)
                    Shell.Progress.WriteLine("Nothing is wrong.");
                else if (!problems.All(problem => problem.Repaired))
                    Shell.Progress.WriteLine("next:  dotnet memopt runs doctor --repair");
                return problems.All(problem => problem.Repaired) ? 0 : 1;
            }
        );
        return command;
    }
}
