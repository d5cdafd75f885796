using System.Text;

namespace Memopt.Tool.Tests;

/// <summary>Everything a user can get wrong gives one clear message, an exit code, and no stack trace; nothing is
/// lost.</summary>
public sealed class BadInputTests
{
    private const string Good = """{ "data": { "train": "train.jsonl" }, "train": { "steps": 2, "batchSize": 2 } }""";

    public static TheoryData<string, string, string> Configs =>
        new()
        {
            { "broken JSON", "{ \"train\": { \"steps\": }", "MEMOPT0001" },
            { "empty file", "", "MEMOPT0001" },
            { "not an object", "[1, 2]", "must be an object" },
            { "text after the end", Good + "{}", "MEMOPT0001" },
            { "lone surrogate", "{ \"model\": { \"source\": \"\\ud800\" } }", "MEMOPT0001" },
            { "unknown key", "{ \"adapter\": { \"rnk\": 8 } }", "did you mean rank?" },
            { "unknown section", "{ \"adaptr\": { } }", "did you mean adapter?" },
            { "key twice", "{ \"train\": { \"steps\": 1, \"steps\": 2 } }", "written twice" },
            { "wrong type", "{ \"train\": { \"steps\": \"many\" } }", "must be a whole number, found \"many\"" },
            { "out of range", "{ \"train\": { \"steps\": 0 } }", "MEMOPT0004" },
            { "unknown choice", "{ \"adapter\": { \"kind\": \"dora\" } }", "\"lora\", \"qlora\", \"none\"" },
            { "empty targets", "{ \"adapter\": { \"targets\": [] } }", "all-linear" },
            { "zero rank in a pattern", "{ \"adapter\": { \"rankPattern\": { \"q_proj\": 0 } } }", "above 0" },
            { "missing data file", "{ \"data\": { \"train\": \"nowhere.jsonl\" } }", "MEMOPT0005" },
            {
                "missing model",
                "{ \"model\": { \"source\": \"nowhere\" }, \"data\": { \"train\": \"train.jsonl\" } }",
                "MEMOPT0005"
            },
            {
                "activations off the device that are not made again",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"memory\": { \"strategy\": \"manual\", "
                    + "\"offloadActivations\": true } }",
                "memory.recompute = true"
            },
            {
                "trained weights streamed",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"adapter\": { \"kind\": \"none\" }, \"memory\": { "
                    + "\"streamLayers\": 2 } }",
                "cannot be streamed"
            },
            {
                "micro-batch that does not divide",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"train\": { \"batchSize\": 8, \"microBatch\": 3 } }",
                "does not divide"
            },
            {
                "steps and epochs",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"train\": { \"steps\": 8, \"epochs\": 3 } }",
                "keep one"
            },
            {
                "bad betas",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"train\": { \"betas\": [0.9] } }",
                "two numbers"
            },
            {
                "targets that match nothing",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"adapter\": { \"targets\": [\"w_q\"] } }",
                "w_q"
            },
            {
                "pattern that fits nothing",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"adapter\": { \"rankPattern\": { \"nosuch_proj\": "
                    + "2 } } }",
                "nosuch_proj"
            },
            {
                "pattern of no expression",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"adapter\": { \"alphaPattern\": { \"(q_proj\": 2 } } }",
                "not a regular expression"
            },
            {
                "no memory",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"memory\": { \"budgetGiB\": 0.001 } }",
                "does not fit"
            },
            {
                "adapter folder without adapter",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"adapter\": { \"from\": \".\" } }",
                "adapter_config.json"
            },
            {
                "a loss that is no number",
                "{ \"data\": { \"train\": \"train.jsonl\" }, \"train\": { \"steps\": 5, \"batchSize\": 2, "
                    + "\"epsilon\": 0 } }",
                "no longer a number"
            },
        };

    [Theory, MemberData(nameof(Configs))]
    public void Config_that_is_wrong_is_refused_with_its_problem(string kind, string text, string expected)
    {
        var folder = Cli.NewProject(text);
        Refused(Cli.Run(folder, "run", "--json"), expected, kind);
    }

    public static TheoryData<string, string, string> Data =>
        new()
        {
            { "empty", "", "no rows" },
            { "broken row", "{\"messages\": [", "train.jsonl(1," },
            { "no assistant turn", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "train.jsonl(1," },
            { "not a row", "{\"question\": \"a\"}", "train.jsonl(1," },
            { "labels of another length", "{\"input_ids\": [1, 2], \"labels\": [1]}", "train.jsonl(1," },
            { "token outside the vocabulary", "{\"input_ids\": [1, 2, 99999]}", "vocabulary" },
        };

    [Theory, MemberData(nameof(Data))]
    public void Rows_that_are_wrong_are_refused_with_their_problem(string kind, string text, string expected)
    {
        var folder = Cli.NewProject(Good);
        File.WriteAllText(Path.Combine(folder, "train.jsonl"), text);
        var outcome = Cli.Run(folder, "run", "--json");
        Refused(outcome, expected, kind);
        Assert.Equal(2, outcome.Exit);
    }

    [Fact]
    public void Table_with_a_duplicate_column_is_refused_as_bad_data()
    {
        var folder = Cli.NewProject(Good);
        File.WriteAllText(Path.Combine(folder, "twice.csv"), "prompt,prompt,completion\na,b,c\n");
        var outcome = Cli.Run(folder, "run", "--json", "--set", "data.train=twice.csv");
        Refused(outcome, "'prompt' found 2 times", "a column twice");
        Assert.Equal(2, outcome.Exit);
    }

    [Fact]
    public void Config_check_names_the_file_and_the_line_of_a_bad_row()
    {
        const string row =
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
            + "\"b\"}]}\n";
        var folder = Cli.NewProject(Good);
        var (config, data) = (Path.Combine(folder, "memopt.json"), Path.Combine(folder, "train.jsonl"));
        string Check()
        {
            var outcome = Cli.Run(folder, "config", "check");
            Assert.Equal(2, outcome.Exit);
            return outcome.Error;
        }

        File.WriteAllText(data, "\n\n");
        Assert.Contains("train.jsonl: error MEMOPT0007: data there are no rows", Check());
        File.WriteAllText(data, row + "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
        Assert.Contains("train.jsonl(2,1): error MEMOPT0007: data no token of this row carries loss", Check());
        File.WriteAllText(data, row + row.Replace("\"b\"", "\"b\u00e9\"") + row, Encoding.Latin1);
        Assert.Contains("train.jsonl(2,1): error MEMOPT0007: data has bytes that are no character", Check());
        File.WriteAllText(data, row);
        File.WriteAllText(config, "{\n  \"tracking\": { \"experiment\": \"caf\u00e9\" } }", Encoding.Latin1);
        Assert.Contains("memopt.json(2,35): error MEMOPT0001: is not UTF-8 text from here on", Check());
        File.WriteAllText(config, "{\n  \"tracking\": { \"experiment\": \"\\ud800\" } }");
        Assert.Contains("memopt.json(2,31): error MEMOPT0001", Check());
        File.WriteAllText(config, "{ \"train\": { \"steps\": 1 } }");
        File.Delete(data);
        Assert.Contains("memopt.json: error MEMOPT0005: data.train", Check());
    }

    [Fact]
    public void Argument_that_is_wrong_is_named_without_printing_the_help()
    {
        var outcome = Cli.Run(Path.GetTempPath(), "infer", "--max-tokens", "many");
        Assert.Equal(
            (
                2,
                "error: --max-tokens must be a whole number, 1 or more, found \"many\".\n  next:  dotnet memopt "
                    + "infer --help\n",
                ""
            ),
            (outcome.Exit, outcome.Error, outcome.Output)
        );
        outcome = Cli.Run(Path.GetTempPath(), "gate", "--min-accuracy", "80%");
        Assert.Equal((2, ""), (outcome.Exit, outcome.Output));
        Assert.StartsWith("error: --min-accuracy must be a number from 0 to 1", outcome.Error);
    }

    public static TheoryData<string, string> Models =>
        new()
        {
            { "truncated weights", "truncated" },
            { "header only", "not a whole safetensors file" },
            { "other shapes", "has shape" },
            { "missing weights", "holds no weights" },
            { "unknown architecture", "gpt2" },
            { "unknown rope", "longrope" },
            { "broken config", "not valid JSON" },
            { "no config", "config.json" },
            { "broken tokenizer", "tokenizer.json" },
        };

    [Theory, MemberData(nameof(Models))]
    public void Model_that_is_damaged_is_refused_with_its_problem(string kind, string expected)
    {
        var folder = Cli.NewProject(
            """{ "model": { "source": "model" }, "data": { "train": "train.jsonl" }, "train": { "steps": 2, "batchSize": 2 } }"""
        );
        var model = Directory.CreateDirectory(Path.Combine(folder, "model")).FullName;
        foreach (var file in Directory.EnumerateFiles(Path.Combine(Cli.Repository, "samples", "word-class", "model")))
            File.Copy(file, Path.Combine(model, Path.GetFileName(file)));
        var (weights, config) = (Path.Combine(model, "model.safetensors"), Path.Combine(model, "config.json"));
        switch (kind)
        {
            case "truncated weights":
                using (var stream = File.OpenWrite(weights))
                    stream.SetLength(stream.Length - 1000);
                break;
            case "header only":
                File.WriteAllBytes(weights, [255, 255, 255, 255, 0, 0, 0, 0, 1, 2]);
                break;
            case "other shapes":
                Edit(config, "\"intermediate_size\": 768", "\"intermediate_size\": 512");
                break;
            case "missing weights":
                File.Delete(weights);
                break;
            case "unknown architecture":
                Edit(config, "\"model_type\": \"qwen2\"", "\"model_type\": \"gpt2\"");
                break;
            case "unknown rope":
                Edit(config, "\"rope_type\": \"default\"", "\"rope_type\": \"longrope\"");
                break;
            case "broken config":
                File.WriteAllText(config, "{");
                break;
            case "no config":
                File.Delete(config);
                break;
            case "broken tokenizer":
                File.WriteAllText(Path.Combine(model, "tokenizer.json"), "{ \"model\": 1 }");
                break;
        }
        Refused(Cli.Run(folder, "run", "--json"), expected, kind);
    }

    [Fact]
    public void Config_with_several_problems_reports_all_with_line_and_column()
    {
        var folder = Cli.NewProject(
            "{\n  \"adapter\": { \"rnk\": 8 },\n  \"train\": {\n    \"steps\": -1,\n    \"clip\": \"no\" }\n}\n"
        );
        var problems = Cli.Run(folder, "config", "check", "--json").Json["error"]!["problems"]!.AsArray();
        Assert.Equal([(2, 16), (4, 14), (5, 13)], problems.Select(p => ((int)p!["line"]!, (int)p["column"]!)));
    }

    [Fact]
    public void Override_that_is_no_whole_value_is_refused()
    {
        var folder = Cli.NewProject(Good);
        foreach (
            var set in new[]
            {
                "train.learningRate=0,0002",
                "train.steps=5 6",
                "model.source.x=1",
                "train.nothing=1",
                "train.steps",
            }
        )
            Refused(Cli.Run(folder, "config", "check", "--json", "--set", set), "", set);
        foreach (
            var (set, expected) in new[]
            {
                ("model.source=\"abc", "model.source is not valid JSON"),
                ("model.source=\"abc\" def", "model.source is not valid JSON"),
                ("model.source=\"\\ud800\"", "model.source holds text that is not valid Unicode"),
                ("train.steps=\"\\ud800\"", "train.steps holds text that is not valid Unicode"),
            }
        )
        {
            var outcome = Cli.Run(folder, "config", "check", "--json", "--set", set);
            Refused(outcome, expected, set);
            Assert.Equal(2, outcome.Exit);
            Assert.Equal("MEMOPT0001", (string?)outcome.Json["error"]!["problems"]![0]!["code"]);
        }
        Assert.Equal(
            "1234567",
            (string?)
                Cli.Run(folder, "config", "check", "--json", "--set", "model.revision=1234567").Json["config"]![
                    "model"
                ]!["revision"]
        );
    }

    [Fact]
    public void Resume_with_a_changed_pinned_setting_is_refused_with_both_values()
    {
        var folder = Cli.NewProject();
        KilledAfter(1, folder);
        var changed = Cli.Run(folder, "run", "--json", "--set", "adapter.rank=8");
        Refused(changed, "adapter.rank was 4 in the checkpoint, is 8", "pinned");
        Assert.Matches(@"memopt\.json\(\d+,\d+\): error MEMOPT0008: adapter\.rank was 4", changed.Error);
        Assert.Equal(0, Cli.Run(folder, "run").Exit);
    }

    [Fact]
    public void Resume_with_a_corrupt_checkpoint_continues_from_the_one_before()
    {
        var folder = Cli.NewProject();
        KilledAfter(2, folder);
        var newest = Directory
            .EnumerateDirectories(Path.Combine(folder, ".memopt/memopt/checkpoints"), "step-*")
            .Order()
            .Last();
        var state = Path.Combine(newest, "state.safetensors");
        var bytes = File.ReadAllBytes(state);
        bytes[^5] ^= 1;
        File.WriteAllBytes(state, bytes);
        var again = Cli.Run(folder, "run");
        Assert.Equal(0, again.Exit);
        Assert.Contains("is not whole", again.Error);
    }

    [Fact]
    public void Store_that_is_a_file_is_refused_by_name()
    {
        var folder = Cli.NewProject(Good);
        File.WriteAllText(Path.Combine(folder, "store"), "a file, not a folder");
        Refused(Cli.Run(folder, "runs", "list", "--json", "--store", "store"), "no run store", "a file as a store");
    }

    [Fact]
    public void Command_with_an_empty_argument_is_refused_and_removes_nothing()
    {
        var folder = Cli.NewProject(Good);
        Assert.Equal(0, Cli.Run(folder, "artifacts", "put", "train.jsonl").Exit);
        string[][] unset =
        [
            ["artifacts", "rm", ""],
            ["runs", "gc", "--filter", "", "--apply"],
            ["runs", "list", "--store", ""],
            ["run", ""],
            ["sweep", ""],
            ["pull", ""],
            ["infer", ""],
            ["export", "--adapter", "", "--out", "x"],
            ["adapters", "register", "x", ""],
        ];
        Assert.All(
            unset,
            arguments => Refused(Cli.Run(folder, [.. arguments, "--json"]), " is empty.", string.Join(" ", arguments))
        );
        Assert.Single(Cli.Run(folder, "artifacts", "ls", "--json").Json.AsArray());
        foreach (var days in new[] { "-5", "99999999" })
        {
            var outcome = Cli.Run(folder, "runs", "gc", $"--older-than={days}", "--apply");
            Assert.Equal(2, outcome.Exit);
            Assert.Contains("from 0 to 36500 days", outcome.Error);
        }
    }

    [Fact]
    public void Checkpoint_that_cannot_be_written_is_reported_by_path()
    {
        var folder = Cli.NewProject(Good);
        Directory.CreateDirectory(Path.Combine(folder, ".memopt", "memopt"));
        File.WriteAllText(Path.Combine(folder, ".memopt", "memopt", "checkpoints"), "a file, not a folder");
        Refused(Cli.Run(folder, "run", "--json"), "cannot be written", "unwritable checkpoint");
        Assert.Equal("failed", (string?)Cli.Run(folder, "runs", "list", "--json").Json[0]!["status"]);
    }

    [Fact]
    public void Command_with_wrong_words_prints_a_hint_and_no_stack_trace()
    {
        var folder = Cli.NewProject(Good);
        foreach (
            string[] words in new[]
            {
                new[] { "rnu" },
                ["runs", "show", "nothing"],
                ["eval", "--data", "nowhere.jsonl"],
                ["infer", "--ids", "1,x"],
                ["export", "--out", "x"],
                ["run", "other.json"],
                ["eval", "--data", "train.jsonl", "--dtype", "int3"],
                ["run", "--backend", "/nowhere"],
                ["eval"],
                ["infer", ""],
                ["infer", "--adapter", ".", "a"],
            }
        )
        {
            var outcome = Cli.Run(folder, words);
            Assert.NotEqual(0, outcome.Exit);
            Assert.DoesNotContain("   at ", outcome.Error + outcome.Output);
            Assert.DoesNotContain("loading", outcome.Error);
            Assert.NotEmpty(outcome.Error);
        }
    }

    /// <summary>A run that is killed when it has left so many checkpoints, and before its end.</summary>
    private static void KilledAfter(int checkpoints, string folder)
    {
        var end = Cli.Endless(folder);
        using var process = Cli.Start(folder, "run");
        var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        var place = Path.Combine(folder, ".memopt/memopt/checkpoints");
        while (!Directory.Exists(place) || Directory.EnumerateDirectories(place, "step-*").Count() < checkpoints)
            Assert.False(process.WaitForExit(20), process.HasExited ? error.Result : "");
        process.Kill();
        process.WaitForExit();
        end();
    }

    private static void Refused(Outcome outcome, string expected, string kind)
    {
        Assert.True(outcome.Exit is 1 or 2, $"{kind}: exit {outcome.Exit}\n{outcome.Error}");
        var error = outcome.Json["error"]!;
        Assert.False(string.IsNullOrWhiteSpace((string?)error["message"]));
        Assert.DoesNotContain("   at ", outcome.Error + outcome.Output);
        Assert.DoesNotContain("should not have", outcome.Error);
        Assert.True(
            outcome.Error.Contains(expected, StringComparison.Ordinal),
            $"{kind}: no \"{expected}\" in\n{outcome.Error}"
        );
    }

    private static void Edit(string file, string from, string to)
    {
        var text = File.ReadAllText(file);
        Assert.Contains(from, text);
        File.WriteAllText(file, text.Replace(from, to), new UTF8Encoding(false));
    }
}
