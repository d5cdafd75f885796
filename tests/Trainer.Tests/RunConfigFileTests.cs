using System.Text;
using Memopt.Core;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Tests;

public sealed class RunConfigFileTests
{
    private static ProjectConfig Read(string text, params string[] overrides)
    {
        var file = Path.Combine(Directory.CreateTempSubdirectory("memopt").FullName, "memopt.json");
        File.WriteAllText(file, text, new UTF8Encoding(encoderShouldEmitUTF8Identifier: true));
        return RunConfigFile.Read(file, overrides, checkFiles: false);
    }

    [Fact]
    public void Config_with_comments_and_overrides_keeps_the_other_defaults()
    {
        var loaded = Read(
            """
            {
              // comments and trailing commas are fine
              "adapter": { "kind": "qlora", "targets": ["q_proj", "v_proj"], "rankPattern": { "q_proj": 8 }, },
            }
            """,
            "train.steps=500",
            "tracking.tags.team=nlp",
            "adapter.targets=all-linear",
            "train.learningRate=1e-4"
        );
        Assert.Equal(AdapterKind.Qlora, loaded.Settings.Adapter.Kind);
        Assert.True(loaded.Settings.Adapter.Targets.All);
        Assert.Equal(8, loaded.Settings.Adapter.RankPattern["q_proj"]);
        Assert.Equal((500, 1e-4), (loaded.Settings.Train.Steps, loaded.Settings.Train.LearningRate));
        Assert.Equal("nlp", loaded.Settings.Tracking.Tags["team"]);
        Assert.Contains(new Override("train.steps", "null", "500"), loaded.Overrides);
        Assert.Equal(new RunConfig().Train.BatchSize, loaded.Settings.Train.BatchSize);
    }

    [Theory]
    [
        InlineData("model.dtype", "bf16", "bfloat16"),
        InlineData("model.dtype", "fp16", "float16"),
        InlineData("model.dtype", "half", "float16"),
        InlineData("model.dtype", "fp32", "float32")
    ]
    [
        InlineData("model.dtype", "float", "float32"),
        InlineData("model.dtype", "auto", "auto"),
        InlineData("quantization.computeType", "bf16", "bfloat16"),
        InlineData("adapter.kind", "full", "none")
    ]
    [
        InlineData("adapter.biases", "lora_only", "loraOnly"),
        InlineData("train.schedule", "cosine_with_warmup", "cosine"),
        InlineData("train.optimizer", "adamw_torch", "adamw"),
        InlineData("data.truncate", "keep_end", "left")
    ]
    public void Value_names_of_other_tools_are_read_as_the_value(string setting, string name, string own)
    {
        var (section, key) = (setting.Split('.')[0], setting.Split('.')[1]);
        var (other, ours) = (
            Read($$"""{ "{{section}}": { "{{key}}": "{{name}}" } }"""),
            Read("{}", $"{setting}={own}")
        );
        Assert.Equal((ours.Json, ours.Hash), (other.Json, other.Hash));
        Assert.Equal(ours.Json, Read("{}", $"{setting}={name}").Json);
        Assert.Contains(
            name,
            System.Text.Json.Nodes.JsonNode.Parse(RunConfigSchema.Generate())!["properties"]![section]!["properties"]![
                key
            ]!["enum"]!
                .AsArray()
                .Select(value => (string)value!)
        );
    }

    [
        Theory,
        InlineData("model.dtype", "int8", "one of \"auto\", \"float32\", \"bfloat16\", \"float16\""),
        InlineData("train.optimizer", "adamw_8bit", "one of \"adamw\""),
        InlineData("train.schedule", "cosine_with_restarts", "one of")
    ]
    public void Value_names_of_another_setting_are_refused(string setting, string name, string expected) =>
        Assert.Contains(
            expected,
            Assert.Single(Assert.Throws<UserFault>(() => Read("{}", $"{setting}={name}")).Problems).Message
        );

    [Theory, InlineData("zero2"), InlineData("zero3")]
    public void Pipeline_with_gradients_or_layers_sharded_is_refused(string strategy) =>
        Assert.Equal(
            "distributed.strategy",
            Assert
                .Single(
                    Assert
                        .Throws<UserFault>(() =>
                            Read("{}", "distributed.pipeline=2", $"distributed.strategy={strategy}")
                        )
                        .Problems
                )
                .Path
        );

    [Fact]
    public void Config_written_reads_back_equal()
    {
        var once = Read(
            """{ "train": { "betas": [0.8, 0.95], "steps": 3 }, "adapter": { "alphaPattern": { "o_proj": 2.5 } }, "memory": { "recompute": true } }"""
        );
        // Both steps and epochs are written out by the tool, never by a user.
        var again = Read(once.Json.Replace("\"epochs\": 3,", ""));
        Assert.Equal(once.Json, again.Json);
        Assert.Equal(once.Hash, again.Hash);
    }

    [Fact]
    public void Settings_that_are_not_pinned_are_not_compared()
    {
        var before = Read("""{ "checkpoint": { "every": 5 }, "adapter": { "rank": 4 } }""");
        Assert.Empty(
            PinnedSettings.Differences(
                before.Json,
                Read("""{ "checkpoint": { "every": 9 }, "adapter": { "rank": 4 } }""").Settings
            )
        );
        Assert.Equal(
            [new Override("adapter.rank", "4", "8")],
            PinnedSettings.Differences(before.Json, Read("""{ "adapter": { "rank": 8 } }""").Settings)
        );
    }

    [Fact]
    public void Positions_of_problems_ignore_a_byte_order_mark()
    {
        var fault = Assert.Throws<UserFault>(() => Read("{\n  \"train\": { \"clip\": \"ü\", \"stpes\": 1 }\n}"));
        Assert.Equal([(2, 22), (2, 27)], fault.Problems.Select(p => (p.Line, p.Column)));
        fault = Assert.Throws<UserFault>(() => Read("{\n  \"train\": { \"clip\": \"ü😀\" bad }\n}"));
        Assert.Equal((2, 28), (fault.Problems[^1].Line, fault.Problems[^1].Column));
    }

    [Fact]
    public void Schema_in_docs_equals_the_generated_one() =>
        Assert.Equal(
            RunConfigSchema.Generate(),
            File.ReadAllText(Path.Combine(TestBackend.Repository, "docs", "memopt.schema.json"))
        );
}
