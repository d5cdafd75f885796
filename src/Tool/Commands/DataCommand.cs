using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;

namespace Memopt.Tool.Commands;

/// <summary><c>data preview</c>: what training will see of its data; without libtorch.</summary>
internal static class DataCommand
{
    public static Command Create() =>
        new("data", "Look at training data.\n\nExample:\n  dotnet memopt data preview memopt.json --rows 2")
        {
            Preview(),
        };

    private static Command Preview()
    {
        var what = new Argument<string>("config")
        {
            Description = "A config, or a file, folder, glob or hf:org/name of rows.",
            DefaultValueFactory = _ => CurrentProject.Config,
        };
        var rows = Shell.NumberOption("--rows", "Rows to show.", 3, "0 or more", number => number >= 0);
        var eval = new Option<bool>("--eval") { Description = "Show the rows for evaluation." };
        var model = new Option<string?>("--model")
        {
            Description = "Whose tokens, in place of the config's; embedded:nano for a file.",
        };
        var set = Shell.SetOption("Change a setting: --set data.truncate=left (repeatable).");
        var (offline, json) = (Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command(
            "preview",
            "Show rows as tokens with the trained ones highlighted, lengths, what is cut or left out, and how "
                + "well rows pack.\n\nExample:\n  dotnet memopt data preview train.parquet --model Qwen/Qwen3-0.6B\n  "
                + "8,192 rows, 3,104,771 tokens, 1,920,333 trained …"
        )
        {
            what,
            rows,
            eval,
            model,
            set,
            offline,
            json,
        };
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var overrides = parsed.GetValue(set) ?? [];
                            var config = IsConfig(parsed.GetValue(what)!)
                                ? RunConfigFile.Read(parsed.GetValue(what)!, overrides, checkFiles: false)
                                : RunConfigFile.Default([.. overrides, $"data.train={parsed.GetValue(what)}"]);
                            var source = ModelSource.Parse(
                                parsed.GetValue(model) ?? config.Settings.Model.Source,
                                parsed.GetValue(model) is null ? config.Folder : Directory.GetCurrentDirectory()
                            );
                            var folder = PullCommand
                                .FetchText(
                                    source,
                                    parsed.GetValue(model) is null ? config.Settings.Model.Revision : null,
                                    parsed.GetValue(offline),
                                    stop
                                )
                                .Folder;
                            config = PullCommand.FetchData(config, parsed.GetValue(offline), stop);
                            var text = new ChatEncoder(
                                folder,
                                Trainer.Recipes.FineTuneRecipe.EndOfTurn(ModelSpec.Read(folder)),
                                stop: stop
                            );
                            var count = parsed.GetValue(rows);
                            if (Dataset.Pairs(config, text, Math.Max(1, count)) is { Count: > 0 } pairs)
                            {
                                var shown = pairs
                                    .SelectMany(pair =>
                                        new[]
                                        {
                                            RowView.Of(pair.Chosen, text, "chosen"),
                                            RowView.Of(pair.Rejected, text, "rejected"),
                                        }
                                    )
                                    .ToList();
                                if (parsed.GetValue(json))
                                    Shell.Print(new { trainable = false, rows = shown });
                                else
                                    DataView.Write(
                                        Shell.Output,
                                        shown,
                                        "preference pairs: read, and not trained on yet"
                                    );
                                return 0;
                            }
                            var role = parsed.GetValue(eval) ? DataRole.Eval : DataRole.Train;
                            var watcher = new ConsoleObserver();
                            var reports = new DataReports(
                                note => watcher.Stage(StageNames.Data, note),
                                (done, total) => watcher.Progress("tokenizing, MiB", done >> 20, total >> 20)
                            );
                            var data =
                                Dataset.Load(config, text, role, reports, stop)
                                ?? throw new UserFault(
                                    "The config has no data for evaluation.",
                                    next: "set data.eval or data.evalShare"
                                );
                            var preview = DataView.Of(data, config.Settings, text, count);
                            if (parsed.GetValue(json))
                                Shell.Print(preview);
                            else
                                preview.Write(Shell.Output, data.Summary(config.Settings.Data));
                            return 0;
                        }
                    )
                )
        );
        return command;
    }

    /// <summary>Whether a file is a config and not rows: an object with a config's sections and nothing else.</summary>
    private static bool IsConfig(string path)
    {
        if (
            path == CurrentProject.Config
            || !path.EndsWith(".json", StringComparison.Ordinal)
            || !File.Exists(path)
            || new FileInfo(path).Length > 1 << 20
        )
            return path == CurrentProject.Config;
        try
        {
            return JsonNode.Parse(
                    File.ReadAllText(path),
                    documentOptions: new()
                    {
                        CommentHandling = System.Text.Json.JsonCommentHandling.Skip,
                        AllowTrailingCommas = true,
                    }
                )
                    is JsonObject json
                && json.All(pair => pair.Key == "$schema" || RunConfigFile.Write(new()).ContainsKey(pair.Key))
                && !json.All(pair => pair.Value is JsonArray);
        }
        catch (System.Text.Json.JsonException)
        {
            return false;
        }
    }
}
