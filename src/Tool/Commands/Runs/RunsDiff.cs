using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs diff</c>: what tells two runs apart.</summary>
internal sealed class RunsDiff
{
    private readonly Argument<string> a = new("a") { Description = "One run: its id, a prefix of it, or latest." };
    private readonly Argument<string> b = new("b")
    {
        Description = "The other run; the default is the newest.",
        Arity = ArgumentArity.ZeroOrOne,
    };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new RunsDiff().Declare();

    private Command Declare()
    {
        var command = new Command(
            "diff",
            "Show the differences of two runs: config, hashes, code, environment, memory, result.\n\nExample:\n  "
                + "dotnet memopt runs diff 261124a 261124b"
        )
        {
            a,
            b,
            store,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        using var runs = CurrentProject.Store(parsed.GetValue(store));
        var one = RunsCommand.Need(runs, parsed.GetValue(a));
        var other = RunsCommand.Need(runs, parsed.GetValue(b));
        var differences = RunDiff.Between(one, other);
        if (parsed.GetValue(json))
            Shell.Print(differences);
        else if (differences.Count == 0)
            Shell.Output.WriteLine("The runs do not differ.");
        else
        {
            RunLetters.Show([one, other]);
            Shell.Output.Write(Table(differences));
        }
        return 0;
    }

    private static FittedTable Table(IReadOnlyList<RunDifference> differences)
    {
        var table = new FittedTable("--json")
            .AddColumn("", breaks: true)
            .AddColumn("a", breaks: true)
            .AddColumn("b", breaks: true);
        foreach (var section in differences.GroupBy(difference => difference.Section))
        {
            table.AddRow($"[bold]{section.Key}[/]", "", "");
            foreach (var difference in section)
                table.AddRow(
                    Markup.Escape(difference.Key),
                    Markup.Escape(difference.A ?? "–"),
                    Markup.Escape(difference.B ?? "–")
                );
        }
        return table;
    }
}
