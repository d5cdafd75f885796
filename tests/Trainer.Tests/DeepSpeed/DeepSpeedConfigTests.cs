using Memopt.Core;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Tests.DeepSpeed;

/// <summary><c>distributed.deepspeed</c> in a config.</summary>
public sealed class DeepSpeedConfigTests
{
    private const string File = """
        {
          "train_micro_batch_size_per_gpu": 4,
          "gradient_accumulation_steps": 2,
          "gradient_clipping": 0.5,
          "zero_optimization": { "stage": 1, "overlap_comm": true }
        }
        """;

    private static ProjectConfig Read(string config, string deepSpeed, int? ranks, params string[] overrides)
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        System.IO.File.WriteAllText(Path.Combine(folder, "memopt.json"), config);
        System.IO.File.WriteAllText(Path.Combine(folder, "ds.json"), deepSpeed);
        return RunConfigFile.Read(Path.Combine(folder, "memopt.json"), overrides, checkFiles: false, ranks);
    }

    private static string Named(string settings = "") =>
        $$"""{ "distributed": { "deepspeed": "ds.json" }{{settings}} }""";

    [Fact]
    public void File_that_a_config_names_becomes_its_settings()
    {
        var config = Read(Named(), File, ranks: null);
        var (train, distributed) = (config.Settings.Train, config.Settings.Distributed);
        Assert.Equal((8, 4, 0.5), (train.BatchSize, train.MicroBatch!.Value, train.Clip));
        Assert.Equal(DistributedStrategy.Zero1, distributed.Strategy);
        Assert.Contains(new Override("train.clip", "1", "0.5", "ds.json"), config.Overrides);
        Assert.Equal("zero_optimization.overlap_comm", Assert.Single(config.DeepSpeed!.Warnings).Path);
    }

    [
        Theory,
        InlineData("{ \"deepspeed\": \"ds.json\", \"gpus\": 2 }", null, 16),
        InlineData("{ \"deepspeed\": \"ds.json\" }", 4, 32),
        InlineData("{ \"deepspeed\": \"ds.json\", \"gpus\": 2 }", 4, 32)
    ]
    public void Batch_counts_the_ranks_of_config_or_launcher(string distributed, int? ranks, int batch) =>
        Assert.Equal(batch, Read($$"""{ "distributed": {{distributed}} }""", File, ranks).Settings.Train.BatchSize);

    [Fact]
    public void Setting_that_the_config_says_otherwise_is_a_problem_that_names_both()
    {
        var fault = Assert.Throws<UserFault>(() => Read(Named(", \"train\": { \"clip\": 2 }"), File, null));
        var problem = Assert.Single(fault.Problems);
        Assert.Equal(("train.clip", 1, "MEMOPT0006"), (problem.Path, problem.Line, problem.Code));
        Assert.Contains("is 2 in ", problem.Message, StringComparison.Ordinal);
        Assert.Contains("ds.json(4,3) has gradient_clipping = 0.5", problem.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(", \"train\": { \"clip\": 0.5, \"batchSize\": 8 }")]
    [InlineData(", \"memory\": { \"offloadOptimizer\": null }, \"model\": { \"dtype\": \"auto\" }")]
    public void Setting_that_is_equal_or_open_is_no_problem(string settings) =>
        Assert.Equal(0.5, Read(Named(settings), File, null).Settings.Train.Clip);

    [Fact]
    public void Command_line_decides_over_both_without_a_problem()
    {
        var config = Read(Named(", \"train\": { \"clip\": 2 }"), File, null, "train.clip=3", "train.microBatch=2");
        Assert.Equal(
            (3, 2, 8),
            (config.Settings.Train.Clip, config.Settings.Train.MicroBatch, config.Settings.Train.BatchSize)
        );
        Assert.Equal(new Override("train.clip", "2", "3"), config.Overrides[0]);
    }

    [Fact]
    public void Steps_of_the_scheduler_beside_written_epochs_are_a_problem()
    {
        const string steps = """
            { "scheduler": { "type": "WarmupDecayLR", "params": { "total_num_steps": 50, "warmup_num_steps": 5 } } }
            """;
        var epochs = Named(", \"train\": { \"epochs\": 2 }");
        var problem = Assert.Single(Assert.Throws<UserFault>(() => Read(epochs, steps, null)).Problems);
        Assert.Equal("train.epochs", problem.Path);
        Assert.Null(Read(Named(), steps, null, "train.epochs=2").Settings.Train.Steps);
        Assert.Equal(50, Read(Named(), steps, null).Settings.Train.Steps);
    }

    [Fact]
    public void Refusals_come_all_at_once_with_their_places()
    {
        var fault = Assert.Throws<UserFault>(() =>
            Read(
                Named(),
                "{\n  \"zero_optimization\": { \"mics_shard_size\": 8 },\n  \"amp\": { \"enabled\": true }\n}",
                null
            )
        );
        Assert.Equal([2, 3], fault.Problems.Select(problem => problem.Line));
        Assert.False(fault.Failed);
    }

    [Fact]
    public void File_that_is_missing_is_a_problem_of_the_setting()
    {
        var config = """{ "distributed": { "deepspeed": "other.json" } }""";
        var problem = Assert.Single(Assert.Throws<UserFault>(() => Read(config, File, null)).Problems);
        Assert.Equal(("distributed.deepspeed", "MEMOPT0005"), (problem.Path, problem.Code));
    }

    [Fact]
    public void Recorded_settings_do_not_read_the_file_again()
    {
        var config = Read(Named(), File, null);
        System.IO.File.Delete(Path.Combine(config.Folder, "ds.json"));
        System.IO.File.WriteAllText(Path.Combine(config.Folder, "train.jsonl"), "{\"text\": \"a\"}\n");
        var again = RunConfigFile.Recorded(Path.Combine(config.Folder, "run-1"), config.Json, []);
        Assert.Equal(config.Json, again.Json);
        Assert.Null(again.DeepSpeed);
    }

    [Fact]
    public void Settings_made_in_code_take_the_file_where_they_are_at_their_defaults()
    {
        var folder = Read(Named(), File, null).Folder;
        System.IO.File.WriteAllText(Path.Combine(folder, "train.jsonl"), "{\"text\": \"a\"}\n");
        ProjectConfig Made(double clip) =>
            RunConfigFile.Read(
                Path.Combine(folder, "code.json"),
                new RunConfig
                {
                    Distributed = new() { Deepspeed = "ds.json" },
                    Train = new() { Clip = clip },
                },
                []
            );
        Assert.Equal(0.5, Made(new TrainConfig().Clip).Settings.Train.Clip);
        Assert.Equal("train.clip", Assert.Single(Assert.Throws<UserFault>(() => Made(2)).Problems).Path);
    }
}
