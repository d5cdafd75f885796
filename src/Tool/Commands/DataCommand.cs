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
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Commands;

/// <summary><c>data preview</c>: what training will see of its data; without libtorch.</summary>
internal sealed class DataCommand
{
    private readonly Argument<string> source = new("config")
    {
        Description = "A config, or a file, folder, glob or hf:org/name of rows.",
        DefaultValueFactory = _ => CurrentProject.Config,
    };
    private readonly Option<int> rows = Shell.NumberOption(
        "--rows",
        "Rows to show.",
        3,
        "0 or more",
        number => number >= 0
    );
    private readonly Option<bool> eval = new("--eval") { Description = "Show the rows for evaluation." };
    private readonly Option<string?> model = new("--model")
    {
        Description = "The model whose tokenizer is used; the default is the config's, or embedded:nano for a file.",
    };
    private readonly Option<string[]> set = Shell.SetOption(
        "Override a setting: --set data.truncate=left (repeatable)."
    );
    private readonly Option<bool> offline = Shell.OfflineOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() =>
        new("data", "Inspect training data.\n\nExample:\n  dotnet memopt data preview memopt.json --rows 2")
        {
            new DataCommand().Preview(),
        };

    private Command Preview()
    {
        var command = new Command(
            "preview",
            "Show rows as tokens with the trained ones highlighted, their lengths, truncated and dropped rows, and "
                + "the fill of packed sequences.\n\nExample:\n  dotnet memopt data preview train.parquet "
                + "--model Qwen/Qwen3-0.6B\n  8,192 rows, 3,104,771 tokens, 1,920,333 trained …"
        )
        {
            source,
            rows,
            eval,
            model,
            set,
            offline,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var config = Config(parsed);
        var folder = ModelFolder(config, parsed, stop);
        config = PullCommand.FetchData(config, parsed.GetValue(offline), new ConsoleObserver(), stop);
        var text = new ChatEncoder(folder, ModelSpec.Read(folder).EndOfTurn, stop: stop);
        if (Dataset.Pairs(config, text, Math.Max(1, parsed.GetValue(rows))) is { Count: > 0 } pairs)
            ShowPairs(pairs, text, parsed.GetValue(json));
        else
            ShowRows(config, text, parsed, stop);
        return 0;
    }

    /// <summary>The config that is named, or the defaults with the rows that are named.</summary>
    private ProjectConfig Config(ParseResult parsed)
    {
        var (named, overrides) = (parsed.GetValue(source)!, parsed.GetValue(set) ?? []);
        return IsConfig(named)
            ? RunConfigFile.Read(named, overrides, checkFiles: false)
            : RunConfigFile.Default([.. overrides, $"data.train={named}"]);
    }

    /// <summary>The folder of the model whose tokens are shown.</summary>
    private string ModelFolder(ProjectConfig config, ParseResult parsed, CancellationToken stop)
    {
        var (name, folder, revision) = parsed.GetValue(model) is { } named
            ? (named, Directory.GetCurrentDirectory(), (string?)null)
            : (config.Settings.Model.Source, config.Folder, config.Settings.Model.Revision);
        return PullCommand.FetchText(ModelSource.Parse(name, folder), revision, parsed.GetValue(offline), stop).Folder;
    }

    private static void ShowPairs(IReadOnlyList<(Row Chosen, Row Rejected)> pairs, ChatEncoder text, bool json)
    {
        var shown = pairs
            .SelectMany(pair =>
                new[] { RowView.Of(pair.Chosen, text, "chosen"), RowView.Of(pair.Rejected, text, "rejected") }
            )
            .ToList();
        if (json)
            Shell.Print(new { trainable = false, rows = shown });
        else
            DataView.Write(Shell.Output, shown, "preference pairs: read, and not trained on yet");
    }

    private void ShowRows(ProjectConfig config, ChatEncoder text, ParseResult parsed, CancellationToken stop)
    {
        var role = parsed.GetValue(eval) ? DataRole.Eval : DataRole.Train;
        var data =
            Dataset.Load(config, text, role, new ConsoleObserver().DataReports(), stop)
            ?? throw new UserFault("The config has no data for evaluation.", next: "set data.eval or data.evalShare");
        var preview = DataView.Of(data, config.Settings, text, parsed.GetValue(rows));
        if (parsed.GetValue(json))
            Shell.Print(preview);
        else
            preview.Write(Shell.Output, data.Summary(config.Settings.Data));
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
                && json.All(pair => pair.Key == "$schema" || ConfigWriter.Write(new()).ContainsKey(pair.Key))
                && !json.All(pair => pair.Value is JsonArray);
        }
        catch (System.Text.Json.JsonException)
        {
            return false;
        }
    }
}
