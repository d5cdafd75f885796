using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Sources;
using Spectre.Console;

namespace Memopt.Tool.Tests;

/// <summary>What was typed and what was meant.</summary>
public sealed class CommandLineTests
{
    /// <summary>Names of transformers' TrainingArguments and PEFT's LoraConfig among them.</summary>
    public static TheoryData<string, string, string> Wrong =>
        new()
        {
            { "rnu", "memopt has no command rnu; did you mean run?", "dotnet memopt run" },
            { "runs lst", "memopt runs has no command lst; did you mean list?", "dotnet memopt runs list" },
            { "list", "memopt has no command list; there is runs list.", "dotnet memopt runs list" },
            { "runs", "memopt runs needs a command.", "dotnet memopt runs --help" },
            {
                "runs list --limt 5",
                "memopt runs list has no option --limt; did you mean --limit?",
                "dotnet memopt runs list --limit 5"
            },
            {
                "run --from-strat",
                "memopt run has no option --from-strat; did you mean --from-start?",
                "dotnet memopt run --from-start"
            },
            {
                "run --lr 1e-4",
                "memopt run has no option --lr; settings are changed with --set.",
                "dotnet memopt run --set train.learningRate=1e-4"
            },
            {
                "run my.json --learning_rate=1e-4",
                "memopt run has no option --learning_rate; settings",
                "dotnet memopt run --set train.learningRate=1e-4"
            },
            {
                "run --epochs 3",
                "memopt run has no option --epochs; settings",
                "dotnet memopt run --set train.epochs=3"
            },
            { "run --num_train_epochs 3", "settings are changed with --set", "--set train.epochs=3" },
            { "run --per_device_train_batch_size 4", "settings are changed with --set", "--set train.microBatch=4" },
            { "run --lora_alpha 16", "settings are changed with --set", "--set adapter.alpha=16" },
            { "run --bf16", "settings are changed with --set", "--set model.dtype=bfloat16" },
            { "run --config my.json", "the config is an argument", "dotnet memopt run my.json" },
            {
                "run a.json b.json",
                "memopt run takes fewer arguments: \"b.json\" is one too many.",
                "dotnet memopt run --help"
            },
            { "run --set --offline", "--set needs a value, and --offline is an option.", "dotnet memopt run --help" },
            { "pull", "Required argument 'source' missing", "dotnet memopt pull --help" },
            {
                "infer --temperature -1 hi",
                "--temperature must be a number from 0 to 100, found \"-1\"",
                "dotnet memopt infer --help"
            },
            { "infer --top-p NaN hi", "--top-p must be a number above 0", "dotnet memopt infer --help" },
            { "infer --max-tokens 0 hi", "--max-tokens must be", "dotnet memopt infer --help" },
            { "eval --batch 0", "--batch must be 1 or more", "dotnet memopt eval --help" },
            { "plan --gpus -1", "--gpus must be from 1 to 1024", "dotnet memopt plan --help" },
            { "plan --gpus many", "--gpus must be from 1 to 1024", "dotnet memopt plan --help" },
            { "plan --gpus 99999999999", "--gpus must be from 1 to 1024", "dotnet memopt plan --help" },
            { "completion fish", "'bash' 'zsh' 'pwsh'", "dotnet memopt completion --help" },
            { "run --store", "memopt run has no option --store", "dotnet memopt run --" },
        };

    [Theory, MemberData(nameof(Wrong))]
    public void Mistyped_command_is_answered_with_the_correction_and_the_next_command(
        string typed,
        string expected,
        string next
    )
    {
        string[] words = typed.Split(' ');
        var fault = CommandLine.Wrong(Program.Root().Parse(words, CommandLine.Form), words);
        Assert.NotNull(fault);
        Assert.Contains(expected, fault.Message);
        Assert.Contains(next, fault.Next);
        Assert.DoesNotContain('\n', fault.Message + fault.Next + fault.Found);
        Assert.False(fault.Failed);
    }

    [
        Theory,
        InlineData("infer", "-- --raw"),
        InlineData("infer", "- a list"),
        InlineData("infer", "@a file"),
        InlineData("run", "--help"),
        InlineData("--version"),
        InlineData("plan", "--gpus=4"),
        InlineData("runs", "list", "--filter", ""),
        InlineData("infer", "--", "--max"),
        InlineData("run", "--set=train.steps=5"),
        InlineData("[suggest:3]", "memopt ru")
    ]
    public void Correct_command_line_passes(params string[] words) =>
        Assert.Null(CommandLine.Wrong(Program.Root().Parse(words, CommandLine.Form), words));

    [
        Theory,
        InlineData("lr", "train.learningRate"),
        InlineData("learning_rate", "train.learningRate"),
        InlineData("rnak", "adapter.rank"),
        InlineData("zzzzzz", null)
    ]
    public void Setting_of_another_tool_is_mapped_to_its_name_here(string name, string? expected) =>
        Assert.Equal(expected, Setting.Suggest(name));

    [Theory, InlineData("[D_DATA] final"), InlineData("a{b}"), InlineData("a*"), InlineData("a?c"), InlineData("[!x]")]
    public void Source_in_a_folder_with_glob_characters_matches_that_folder_literally(string name)
    {
        var top = Directory.CreateTempSubdirectory("memopt").FullName;
        foreach (var each in new[] { name, "abc", "D final", "y" })
        {
            var folder = Directory.CreateDirectory(Path.Combine(top, each, "data")).FullName;
            File.WriteAllText(Path.Combine(folder, "train.jsonl"), "{}");
        }
        string[] Found(string folder, string source) =>
            [
                .. DataFiles
                    .Of(DataSource.Parse(source), folder, new Dictionary<string, Snapshot>())
                    .Select(file => file.Path),
            ];
        string[] expected = [Path.Combine(top, name, "data", "train.jsonl")];
        Assert.Equal(expected, Found(Path.Combine(top, name), "data/*.jsonl"));
        Assert.Equal(expected, Found(Path.Combine(top, name), "**/*.jsonl"));
        Assert.Equal(expected, Found(Path.Combine(top, "abc"), $"../{name}/data/t*.jsonl"));
        Assert.Equal(expected, Found("/", $"{top}/{name}/data/*.jsonl"));
        Directory.Delete(top, recursive: true);
    }

    [Theory, InlineData(80), InlineData(40)]
    public void Strategies_in_a_narrow_terminal_fit_without_broken_lines(int width)
    {
        var spec = ModelSpec.Read(
            Path.Combine(Cli.Repository, "tests", "Trainer.Tests", "Plan", "configs", "qwen2.5-7b.json")
        );
        var strategies = Strategies
            .Of(new RunConfig(), spec, PlanDevice.Of(Gpus.Find("RTX 4090")), 2048, 8)
            .Where(strategy => strategy.Name.Length < 36)
            .ToList();
        var output = new StringWriter();
        var console = AnsiConsole.Create(
            new AnsiConsoleSettings { Out = new AnsiConsoleOutput(output), Ansi = AnsiSupport.No }
        );
        console.Profile.Width = width;
        console.Write(StrategyTable.Of(strategies));
        Assert.All(output.ToString().Split('\n'), line => Assert.True(line.TrimEnd().Length <= width, line));
        Assert.All(strategies, strategy => Assert.Contains(strategy.Name + " ", output.ToString()));
    }

    [Fact]
    public void Dry_run_shows_what_would_be_trained_and_writes_nothing()
    {
        var folder = Cli.NewProject();
        var outcome = Cli.Run(folder, "run", "--dry-run", "--json");
        Assert.True(outcome.Exit == 0, outcome.Error);
        // 24 rows in batches of 4, twice.
        Assert.Equal(
            (12, 24, 8, 2),
            (
                (int)outcome.Json["steps"]!,
                (int)outcome.Json["rows"]!,
                (int)outcome.Json["evalRows"]!,
                (int)outcome.Json["microBatch"]!
            )
        );
        Assert.False(Directory.Exists(Path.Combine(folder, ".memopt")));
        File.WriteAllText(Path.Combine(folder, "train.jsonl"), "");
        Assert.Equal(2, Cli.Run(folder, "run", "--dry-run").Exit);
    }

    [Theory, InlineData("--config", "memopt.json"), InlineData("--adapter", ".memopt/memopt/adapter")]
    public void Infer_before_training_names_the_command_that_trains(string option, string value)
    {
        var folder = Cli.NewProject();
        var outcome = Cli.Run(folder, "infer", option, value, "hi");
        Assert.Equal(1, outcome.Exit);
        Assert.Contains("is not trained yet", outcome.Error);
        Assert.Matches(@"next:  dotnet memopt run \S*memopt\.json", outcome.Error);
    }
}
