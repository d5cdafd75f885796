using System.CommandLine;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>cache ls|verify|rm</c>: the models that were downloaded.</summary>
internal static class CacheCommand
{
    public static Command Create() =>
        new(
            "cache",
            "Show, check and remove downloaded models.\n\nExample:\n  dotnet memopt cache ls\n  dotnet memopt "
                + "cache rm Qwen/Qwen2.5-0.5B"
        )
        {
            List(),
            Verify(),
            Remove(),
        };

    private static Command List()
    {
        var json = Shell.JsonOption();
        var command = new Command(
            "ls",
            "List the models in the caches, with their commits and sizes.\n\nExample:\n  dotnet memopt cache ls --json"
        )
        {
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                using var hub = new ModelHub(ProcessEnvironment.HubSettings(offline: true));
                var models = hub.Cached().List();
                if (parsed.GetValue(json))
                {
                    Shell.Print(models);
                    return 0;
                }
                var table = new FittedTable("--json")
                    .AddColumn("model")
                    .AddColumn("commit", rank: 3)
                    .AddColumn("refs", rank: 4)
                    .AddColumn("files", right: true, rank: 2)
                    .AddColumn("size", right: true, rank: 1);
                foreach (var model in models)
                {
                    foreach (var revision in model.Revisions)
                        table.AddRow(
                            Markup.Escape(model.Name),
                            Markup.Escape(revision.Commit),
                            Markup.Escape(string.Join(", ", revision.Refs)),
                            $"{revision.Files}",
                            LedgerTable.Size(revision.Bytes)
                        );
                    if (model.Unfinished > 0)
                        table.AddRow(
                            Markup.Escape(model.Name),
                            $"{model.Unfinished} unfinished",
                            "",
                            "",
                            LedgerTable.Size(model.Bytes)
                        );
                }
                Shell.Output.Write(table);
                return 0;
            }
        );
        return command;
    }

    private static Command Verify()
    {
        var (name, json) = (NameArgument(ArgumentArity.ZeroOrOne), Shell.JsonOption());
        var command = new Command(
            "verify",
            "Hash every file of the caches, or of one model. Removes damaged files; the next pull downloads "
                + "them.\n\nExample:\n  dotnet memopt cache verify Qwen/Qwen2.5-0.5B\n  7 files checked, 0 damaged"
        )
        {
            name,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                using var hub = new ModelHub(ProcessEnvironment.HubSettings(offline: true));
                using var progress = new PullProgress();
                var (count, damaged) = hub.Cached()
                    .VerifyAsync(parsed.GetValue(name), progress, stop)
                    .GetAwaiter()
                    .GetResult();
                if (parsed.GetValue(json))
                {
                    Shell.Print(new { checkedFiles = count, damaged });
                    return damaged.Count == 0 ? 0 : 1;
                }
                foreach (var blob in damaged)
                {
                    var text = $"{blob.Model} {blob.Blob}: {blob.Found}; removed";
                    Shell.Output.MarkupLineInterpolated(
                        $"[red]damaged:[/] {text}, run: dotnet memopt pull {blob.Model}"
                    );
                }
                Console.Out.WriteLine($"{count} files checked, {damaged.Count} damaged");
                return damaged.Count == 0 ? 0 : 1;
            }
        );
        return command;
    }

    private static Command Remove()
    {
        var (name, json) = (NameArgument(ArgumentArity.ExactlyOne), Shell.JsonOption());
        var revision = new Option<string?>("--revision")
        {
            Description = "Remove only the files of this branch or commit.",
        };
        var command = new Command(
            "rm",
            "Remove a model from the cache.\n\nExample:\n  dotnet memopt cache rm Qwen/Qwen2.5-0.5B\n  952.1 MiB freed"
        )
        {
            name,
            revision,
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                using var hub = new ModelHub(ProcessEnvironment.HubSettings(offline: true));
                var freed = hub.Cached().Remove(parsed.GetValue(name)!, parsed.GetValue(revision));
                if (parsed.GetValue(json))
                    Shell.Print(new { freedBytes = freed });
                else
                    Console.Out.WriteLine($"{LedgerTable.Size(freed)} freed");
                return 0;
            }
        );
        return command;
    }

    private static Argument<string?> NameArgument(ArgumentArity arity) =>
        new("model") { Description = "As cache ls shows it.", Arity = arity };
}
