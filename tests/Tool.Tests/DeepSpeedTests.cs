using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary><c>config import --deepspeed</c>, <c>run --deepspeed</c> and <c>distributed.deepspeed</c>.</summary>
public sealed class DeepSpeedTests
{
    private const string Honoured = """
        {
          "train_micro_batch_size_per_gpu": 2,
          "gradient_accumulation_steps": 4,
          "gradient_clipping": 0.5,
          "zero_optimization": { "stage": 2 },
          "steps_per_print": 10
        }
        """;

    private const string Refused = """
        {
          "zero_optimization": { "mics_shard_size": 8, "overlap_com": true },
          "stage3_max_live_parameters": 1e9
        }
        """;

    private static string Project(string deepSpeed, string config = "{}")
    {
        var folder = Cli.NewProject(config);
        File.WriteAllText(Path.Combine(folder, "ds.json"), deepSpeed);
        return folder;
    }

    [Fact]
    public void Import_prints_the_settings_and_a_table_of_the_keys()
    {
        var outcome = Cli.Run(Project(Honoured), "config", "import", "--deepspeed", "ds.json", "--gpus", "2");
        Assert.Equal(0, outcome.Exit);
        var expected = """
            {
              "distributed": { "strategy": "zero2" },
              "train": { "batchSize": 16, "microBatch": 2, "clip": 0.5 }
            }
            """;
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(expected), outcome.Json), outcome.Output);
        Assert.Matches(@"gradient_clipping +0\.5 +honoured +train\.clip=0\.5", outcome.Error);
        Assert.Matches(@"steps_per_print +10 +no effect", outcome.Error);
    }

    [Fact]
    public void Import_of_refused_keys_ends_with_1_and_lists_them_all()
    {
        var outcome = Cli.Run(Project(Refused), "config", "import", "--deepspeed", "ds.json");
        Assert.Equal((1, ""), (outcome.Exit, outcome.Output));
        Assert.Contains(
            "ds.json(2,26): error MEMOPT0018: zero_optimization.mics_shard_size is not there yet",
            outcome.Error
        );
        Assert.Contains("did you mean overlap_comm?", outcome.Error);
        Assert.Contains("ds.json(3,3): error MEMOPT0002: stage3_max_live_parameters is at the top", outcome.Error);
    }

    [Fact]
    public void Import_as_JSON_has_settings_and_keys_also_where_some_are_refused()
    {
        var outcome = Cli.Run(Project(Refused), "config", "import", "--deepspeed", "ds.json", "--json");
        Assert.Equal(1, outcome.Exit);
        var settings = outcome.Json["settings"]!;
        Assert.Equal("ddp", (string?)settings["distributed"]!["strategy"]); // a section without a stage has stage 0
        var refused = outcome.Json["keys"]![0]!;
        Assert.Equal(
            ("zero_optimization.mics_shard_size", 8, "refused", null),
            ((string?)refused["key"], (int)refused["value"]!, (string?)refused["outcome"], (string?)refused["setting"])
        );
        Assert.Contains("set it to -1", (string?)refused["why"]);
        Assert.Contains("zero_optimization.mics_shard_size is not there yet", outcome.Error);
    }

    [Fact]
    public void Import_of_bad_JSON_is_a_problem_with_line_and_column()
    {
        var outcome = Cli.Run(Project("{\n  \"bf16\": tru\n}"), "config", "import", "--deepspeed", "ds.json");
        Assert.Equal(2, outcome.Exit);
        Assert.Matches(@"ds\.json\(2,\d+\): error MEMOPT0001: not valid JSON", outcome.Error);
    }

    [Fact]
    public void Dry_run_takes_the_settings_and_tells_keys_without_effect_once()
    {
        var outcome = Cli.Run(
            Project(Honoured, """{ "data": { "train": "train.jsonl" }, "train": { "steps": 1 } }"""),
            "run",
            "--deepspeed",
            "ds.json",
            "--dry-run",
            "--backend",
            "cpu"
        );
        Assert.Equal(0, outcome.Exit);
        Assert.Contains("1 steps of 8 sequences", outcome.Output);
        Assert.Single(outcome.Error.Split('\n'), line => line.Contains("steps_per_print has no effect"));
    }

    [Fact]
    public void Run_trains_and_records_what_the_file_decides()
    {
        var folder = Project(
            Honoured,
            """{ "distributed": { "deepspeed": "ds.json" }, "data": { "maxLength": 32 }, "train": { "steps": 1 } }"""
        );
        var outcome = Cli.Run(folder, "run", "--backend", "cpu");
        Assert.True(outcome.Exit == 0, outcome.Error);
        Assert.Matches(@"train\.clip +1 -> 0\.5 +\(ds\.json\)", outcome.Error);
        Assert.Single(outcome.Error.Split('\n'), line => line.Contains("steps_per_print has no effect"));
    }

    [Fact]
    public void Check_lists_keys_without_effect_and_names_a_setting_said_twice()
    {
        const string named = """{ "distributed": { "deepspeed": "ds.json" }, "train": { "clip": CLIP } }""";
        var folder = Project(Honoured, named.Replace("CLIP", "0.5"));
        var equal = Cli.Run(folder, "config", "check", "--json");
        Assert.Equal(0, equal.Exit);
        Assert.Contains(equal.Json["problems"]!.AsArray(), problem => (string?)problem!["path"] == "steps_per_print");
        File.WriteAllText(Path.Combine(folder, "memopt.json"), named.Replace("CLIP", "2"));
        var other = Cli.Run(folder, "config", "check");
        Assert.Equal(2, other.Exit);
        Assert.Contains("train.clip is 2 in", other.Error);
        Assert.Contains("ds.json(4,3) has gradient_clipping = 0.5", other.Error);
    }
}
