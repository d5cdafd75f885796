using System.CommandLine;
using System.Globalization;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>runs list</c>, also <c>runs search</c>: which runs there are, of those asked for.</summary>
internal sealed class RunsList
{
    private static readonly string[] usual =
    [
        "run_id",
        "experiment",
        "status",
        "start_time",
        "step",
        "metrics.loss",
        "metrics.eval_loss",
        "metrics.eval_accuracy",
    ];

    /// <summary>The same, the last to be left out on a narrow terminal first.</summary>
    private static readonly string[] importance =
    [
        "run_id",
        "status",
        "metrics.loss",
        "metrics.eval_loss",
        "start_time",
        "experiment",
        "step",
        "metrics.eval_accuracy",
    ];

    private readonly Option<string?> filter = new("--filter")
    {
        Description =
            "Condition, order, or both: \"metrics.eval_loss < 0.5 and params.adapter.rank = 16 order by "
            + "metrics.eval_loss\" (docs/tracking.md).",
    };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<string?> experiment = new("--experiment") { Description = "Only this experiment." };
    private readonly Option<RunStatus?> status = new("--status") { Description = "Only runs with this status." };
    private readonly Option<bool> deleted = new("--deleted")
    {
        Description = "Only runs that a client of MLflow's interface deleted; they are hidden otherwise.",
    };
    private readonly Option<string[]> columns = new("--columns")
    {
        Description =
            "Columns to show, by the names of filters, comma-separated: "
            + "run_id,metrics.loss,min(metrics.loss),params.adapter.rank.",
    };
    private readonly Option<int> limit = Shell.NumberOption(
        "--limit",
        "Largest number of runs.",
        50,
        "at least 1",
        number => number >= 1
    );
    private readonly Option<string?> page = new("--page") { Description = "Page token from the previous call." };
    private readonly Option<bool> json = Shell.JsonOption();
    private readonly Option<bool> csv = new("--csv") { Description = "Print comma-separated values." };

    public static Command Create() => new RunsList().Declare();

    private Command Declare()
    {
        var command = new Command(
            "list",
            "List runs, newest first.\n\nExample:\n  dotnet memopt runs list --filter \"tags.team = 'nlp' and "
                + "metrics.eval_loss < 0.5 order by metrics.eval_loss\" --limit 5"
        )
        {
            filter,
            store,
            experiment,
            status,
            deleted,
            columns,
            limit,
            page,
            json,
            csv,
        };
        command.Aliases.Add("search");
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        using var runs = CurrentProject.Store(parsed.GetValue(store));
        var asked = (parsed.GetValue(columns) ?? []).SelectMany(Apart).ToList();
        IReadOnlyList<string> shown = asked.Count > 0 ? asked : usual;
        var found = runs.Find(Query(parsed, shown));
        if (parsed.GetValue(json))
            Shell.Print(asked.Count == 0 ? found.Runs.Select(RunSummary.Of) : ByColumn(shown, found.Values));
        else if (parsed.GetValue(csv))
            Csv(shown, found.Values);
        else
            Table(shown, found.Values);
        TellUnknown(found);
        RunsCommand.TellWaiting(found.Waiting);
        if (found.Next is not null)
            Shell.Progress.WriteLine($"there are more: --page {found.Next}");
        return 0;
    }

    private RunQuery Query(ParseResult parsed, IReadOnlyList<string> shown) =>
        new()
        {
            Filter = parsed.GetValue(filter),
            Experiment = parsed.GetValue(experiment),
            Status = parsed.GetValue(status),
            Deleted = parsed.GetValue(deleted),
            Columns = shown,
            Limit = parsed.GetValue(limit),
            Page = parsed.GetValue(page),
            Patience = parsed.GetValue(json) || parsed.GetValue(csv) ? null : RunsCommand.Patience,
        };

    private static IEnumerable<object> ByColumn(
        IReadOnlyList<string> columns,
        IReadOnlyList<IReadOnlyList<object?>> rows
    ) => rows.Select(row => columns.Zip(row).ToDictionary(cell => cell.First, cell => cell.Second));

    private static void TellUnknown(RunPage found)
    {
        foreach (var (name, near) in found.Unknown)
            Console.Error.WriteLine(
                $"No run has {name}{(near.Count > 0 ? $": did you mean {string.Join(" or ", near)}?" : ".")}"
            );
    }

    /// <summary>Splits at the commas that stand between names, not within quotes or brackets.</summary>
    internal static IEnumerable<string> Apart(string columns)
    {
        var (start, quote, depth) = (0, '\0', 0);
        for (var i = 0; i < columns.Length; i++)
        {
            var c = columns[i];
            if (quote != '\0')
                quote = c == quote ? '\0' : quote;
            else if (c is '`' or '"')
                quote = c;
            else if (c == ',' && depth == 0)
            {
                yield return columns[start..i].Trim();
                start = i + 1;
            }
            else
                depth +=
                    c == '(' ? 1
                    : c == ')' ? -1
                    : 0;
        }
        yield return columns[start..].Trim();
    }

    private static void Csv(IReadOnlyList<string> columns, IReadOnlyList<IReadOnlyList<object?>> rows)
    {
        static string Cell(string text) =>
            text.AsSpan().IndexOfAny(",\"\r\n") < 0 ? text : $"\"{text.Replace("\"", "\"\"")}\"";
        Console.Out.WriteLine(string.Join(',', columns.Select(Cell)));
        foreach (var row in rows)
            Console.Out.WriteLine(
                string.Join(
                    ',',
                    row.Select(value =>
                        Cell(
                            value switch
                            {
                                null => "",
                                double number => number.ToString("R", CultureInfo.InvariantCulture),
                                DateTimeOffset time => time.ToString("O"),
                                var other => other.ToString()!,
                            }
                        )
                    )
                )
            );
    }

    private static void Table(IReadOnlyList<string> columns, IReadOnlyList<IReadOnlyList<object?>> rows)
    {
        var table = new FittedTable("--columns NAMES, --csv or --json");
        foreach (var (place, column) in columns.Index())
        {
            var (metric, rank) = (
                column.StartsWith("metrics.", StringComparison.Ordinal),
                Array.IndexOf(importance, column)
            );
            table.AddColumn(
                Markup.Escape(metric ? column["metrics.".Length..] : column),
                right: metric,
                rank: columns == usual ? rank : place
            );
        }
        foreach (var row in rows)
            table.AddRow([
                .. columns
                    .Zip(row)
                    .Select(cell =>
                        cell.First == "status"
                            ? RunsCommand.Spelled((string)cell.Second!)
                            : Markup.Escape(RunsCommand.Brief(cell.Second))
                    ),
            ]);
        Shell.Output.Write(table);
    }
}
