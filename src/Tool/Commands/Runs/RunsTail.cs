using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs tail</c>: the last values of a run, and with -f those that come.</summary>
internal sealed class RunsTail
{
    private readonly Argument<string?> id = RunsCommand.RunArgument();
    private readonly Option<bool> follow = new("--follow", "-f") { Description = "Follow the run until it ends." };
    private readonly Option<int> lines = Shell.NumberOption(
        "--lines",
        "Number of past steps to show.",
        10,
        "0 or more",
        number => number >= 0
    );
    private readonly Option<string[]> metrics = new("--metrics")
    {
        Description = "Only these metrics, comma-separated.",
    };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = new("--json") { Description = "Print one JSON object a line." };

    public static Command Create() => new RunsTail().Declare();

    private Command Declare()
    {
        lines.Aliases.Add("-n");
        var command = new Command(
            "tail",
            "Show the last values of a run; -f follows its training.\n\nExample:\n  dotnet memopt runs tail -f"
        )
        {
            id,
            follow,
            lines,
            metrics,
            store,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        using var runs = CurrentProject.Store(parsed.GetValue(store));
        var tail = new RunTail(runs, RunsCommand.Need(runs, parsed.GetValue(id)))
        {
            Metrics = (parsed.GetValue(metrics) ?? []).SelectMany(RunsList.Apart).ToHashSet(),
            Json = parsed.GetValue(json),
        };
        tail.Show(parsed.GetValue(lines));
        if (parsed.GetValue(follow))
            tail.Follow(stop);
        else
            tail.ShowStatus();
        return 0;
    }
}
