using System.Text;

namespace Memopt.Trainer.Tests;

public sealed class RunConfigFileTests
{
    private static LoadedConfig Read(string text, params string[] overrides)
    {
        var file = Path.Combine(Directory.CreateTempSubdirectory("memopt").FullName, "memopt.json");
        File.WriteAllText(file, text, new UTF8Encoding(encoderShouldEmitUTF8Identifier: true));
        return RunConfigFile.Read(file, overrides, checkFiles: false);
    }

    [Fact]
    public void Defaults_comments_and_overrides()
    {
        var loaded = Read("""
            {
              // comments and trailing commas are fine
              "adapter": { "kind": "qlora", "targets": ["q_proj", "v_proj"], "rankPattern": { "q_proj": 8 }, },
            }
            """, "train.steps=500", "tracking.tags.team=nlp", "adapter.targets=all-linear", "train.learningRate=1e-4");
        Assert.Equal(AdapterKind.Qlora, loaded.Config.Adapter.Kind);
        Assert.True(loaded.Config.Adapter.Targets.All);
        Assert.Equal(8, loaded.Config.Adapter.RankPattern["q_proj"]);
        Assert.Equal((500, 1e-4), (loaded.Config.Train.Steps, loaded.Config.Train.LearningRate));
        Assert.Equal("nlp", loaded.Config.Tracking.Tags["team"]);
        Assert.Contains(new Override("train.steps", "null", "500"), loaded.Overrides);
        Assert.Equal(new RunConfig().Train.BatchSize, loaded.Config.Train.BatchSize);
    }

    [Fact]
    public void The_written_config_reads_back_the_same()
    {
        var once = Read("""{ "train": { "betas": [0.8, 0.95], "steps": 3 }, "adapter": { "alphaPattern": { "o_proj": 2.5 } }, "memory": { "recompute": true } }""");
        // Both steps and epochs are written out by the tool, never by a user.
        var again = Read(once.Json.Replace("\"epochs\": 3,", ""));
        Assert.Equal(once.Json, again.Json);
        Assert.Equal(once.Hash, again.Hash);
    }

    [Fact]
    public void Only_pinned_settings_are_compared()
    {
        var before = Read("""{ "checkpoint": { "every": 5 }, "adapter": { "rank": 4 } }""");
        Assert.Empty(RunConfigFile.PinnedDifferences(before.Json, Read("""{ "checkpoint": { "every": 9 }, "adapter": { "rank": 4 } }""").Config));
        Assert.Equal([new Override("adapter.rank", "4", "8")], RunConfigFile.PinnedDifferences(before.Json, Read("""{ "adapter": { "rank": 8 } }""").Config));
    }

    [Fact]
    public void A_byte_order_mark_moves_no_position()
    {
        var fault = Assert.Throws<UserFault>(() => Read("{\n  \"train\": { \"clip\": \"ü\", \"stpes\": 1 }\n}"));
        Assert.Equal([(2, 22), (2, 27)], fault.Problems.Select(p => (p.Line, p.Column)));
        fault = Assert.Throws<UserFault>(() => Read("{\n  \"train\": { \"clip\": \"ü😀\" bad }\n}"));
        Assert.Equal((2, 28), (fault.Problems[^1].Line, fault.Problems[^1].Column));
    }

    [Fact]
    public void The_schema_in_docs_is_the_record_s() =>
        Assert.Equal(RunConfigSchema.Generate(), File.ReadAllText(Path.Combine(TestBackend.Repository, "docs", "memopt.schema.json")));
}
