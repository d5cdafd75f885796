using System.Text;
using Memopt.Core;
using Memopt.Trainer.Config.DeepSpeed;

namespace Memopt.Trainer.Tests.DeepSpeed;

public sealed class DeepSpeedFileTests
{
    private static string Write(string text)
    {
        var path = Path.Combine(Directory.CreateTempSubdirectory("memopt").FullName, "ds.json");
        File.WriteAllText(path, text);
        return path;
    }

    private static DeepSpeedFile Read(string text, int ranks = 1) => DeepSpeedFile.Read(Write(text), ranks);

    /// <summary>A file with one key at a path of names.</summary>
    private static string At(string path, string value) =>
        path.Split('.').Reverse().Aggregate(value, (inside, name) => $$"""{ "{{name}}": {{inside}} }""");

    private static DeepSpeedKey Key(string path, string value) =>
        Read(At(path, value)).Keys.Single(key => key.Key == path);

    private static string Settings(DeepSpeedFile file) =>
        string.Join(' ', file.Assignments.Select(each => $"{each.Assignment}"));

    [
        Theory,
        InlineData("zero_optimization.stage", "0", "distributed.strategy=\"ddp\""),
        InlineData("zero_optimization.stage", "1", "distributed.strategy=\"zero1\""),
        InlineData("zero_optimization.stage", "2", "distributed.strategy=\"zero2\""),
        InlineData("zero_optimization.stage", "3", "distributed.strategy=\"zero3\""),
        InlineData("zero_optimization", "true", "distributed.strategy=\"zero1\""),
        InlineData("zero_optimization", "false", "distributed.strategy=\"ddp\""),
        InlineData("zero_optimization.offload_optimizer.device", "\"cpu\"", "memory.offloadOptimizer=true")
    ]
    [
        InlineData("zero_optimization.offload_optimizer.device", "\"none\"", "memory.offloadOptimizer=false"),
        InlineData("zero_optimization.cpu_offload", "true", "memory.offloadOptimizer=true"),
        InlineData("bf16.enabled", "true", "model.dtype=\"bfloat16\""),
        InlineData("fp16.enabled", "true", "model.dtype=\"float16\""),
        InlineData("gradient_clipping", "0.25", "train.clip=0.25"),
        InlineData("gradient_clipping", "0", "train.clip=0"),
        InlineData("activation_checkpointing.partition_activations", "true", "memory.recompute=true")
    ]
    [InlineData(
        "activation_checkpointing.cpu_checkpointing",
        "true",
        "memory.recompute=true memory.offloadActivations=true"
    )]
    public void Key_with_a_setting_becomes_it(string path, string value, string setting)
    {
        var verdict = Key(path, value).Verdict;
        Assert.Equal(KeyOutcome.Honoured, verdict.Outcome);
        Assert.Equal(setting, string.Join(' ', verdict.Settings));
    }

    [
        Theory,
        InlineData("zero_optimization.offload_optimizer.device", "\"nvme\"", "set it to \"cpu\""),
        InlineData("zero_optimization.offload_param", "{ \"device\": \"cpu\" }", "memory.streamLayers"),
        InlineData("zero_optimization.cpu_offload_param", "true", "memory.streamLayers"),
        InlineData("zero_optimization.offload_optimizer.ratio", "0.5", "set it to 1"),
        InlineData("zero_optimization.offload_optimizer.super_offload", "true", "remove it")
    ]
    [
        InlineData("zero_optimization.zero_hpz_partition_size", "8", "set it to 1"),
        InlineData("zero_optimization.mics_shard_size", "8", "set it to -1"),
        InlineData("zero_optimization.zero_quantized_weights", "true", "set it to false"),
        InlineData("zero_optimization.zero_quantized_gradients", "true", "set it to false"),
        InlineData("zero_optimization.zero_quantized_nontrainable_weights", "true", "adapter.kind = qlora"),
        InlineData("zero_optimization.zenflow", "{ \"topk_ratio\": 0.1 }", "remove it")
    ]
    [
        InlineData("fp16.loss_scale", "128", "set it to 0"),
        InlineData("fp16.fp16_master_weights_and_grads", "true", "fp32"),
        InlineData("optimizer", "{ \"type\": \"Lamb\" }", "\"Lamb\"; memopt has AdamW"),
        InlineData("optimizer", "{ \"params\": { \"lr\": 1 } }", "has no type"),
        InlineData("scheduler", "{ \"type\": \"OneCycle\" }", "\"OneCycle\"; memopt has WarmupLR"),
        InlineData("amp", "{ \"enabled\": true }", "remove it")
    ]
    [
        InlineData("sparse_attention", "{ \"mode\": \"fixed\" }", "remove it"),
        InlineData("compression_training", "{ \"weight_quantization\": {} }", "remove it"),
        InlineData("hybrid_engine", "{ \"enabled\": true }", "remove it"),
        InlineData("moe", "{ \"enabled\": true }", "remove it"),
        InlineData("curriculum_learning", "{ \"enabled\": true }", "remove it"),
        InlineData("data_efficiency", "{ \"enabled\": true }", "remove it")
    ]
    [
        InlineData("elasticity", "{ \"enabled\": true }", "remove it"),
        InlineData("autotuning", "{ \"enabled\": true }", "remove it"),
        InlineData("tensor_parallel", "{ \"autotp_size\": 2 }", "set distributed.tensor"),
        InlineData("tensor_parallel", "{ \"tp\": { \"tp_size\": 2 } }", "set distributed.tensor"),
        InlineData("pipeline", "{ \"stages\": 4 }", "set distributed.pipeline"),
        InlineData("sequence_parallel_size", "2", "remove it")
    ]
    public void Key_that_memopt_has_nothing_for_is_refused_with_what_to_do(string path, string value, string next)
    {
        var verdict = Key(path, value).Verdict;
        Assert.Equal((KeyOutcome.Refused, "MEMOPT0018"), (verdict.Outcome, verdict.Code));
        Assert.Contains(next, verdict.Why, StringComparison.Ordinal);
        Assert.Empty(verdict.Settings);
    }

    [
        Theory,
        InlineData("amp", "{ \"enabled\": false }"),
        InlineData("elasticity", "{ \"enabled\": false, \"max_gpus\": 8 }"),
        InlineData("zero_optimization.zero_quantized_weights", "false"),
        InlineData("zero_optimization.zero_hpz_partition_size", "1"),
        InlineData("zero_optimization.mics_shard_size", "-1"),
        InlineData("zero_optimization.offload_param", "{ \"device\": \"none\" }"),
        InlineData("tensor_parallel", "{ \"autotp_size\": 1 }")
    ]
    [
        InlineData("pipeline", "{ \"stages\": \"auto\" }"),
        InlineData("fp16.loss_scale", "0"),
        InlineData("fp16.enabled", "false"),
        InlineData("zero_optimization.stage", "\"auto\""),
        InlineData("optimizer", "null"),
        InlineData("train_batch_size", "\"auto\""),
        InlineData("zero_optimization.reduce_bucket_size", "\"auto\"")
    ]
    public void Key_that_is_off_or_auto_is_honoured_without_a_setting(string path, string value)
    {
        var verdict = Key(path, value).Verdict;
        Assert.Equal(KeyOutcome.Honoured, verdict.Outcome);
        Assert.Empty(verdict.Settings);
    }

    [
        Theory,
        InlineData("zero_optimization.overlap_comm", "true"),
        InlineData("zero_optimization.stage3_max_live_parameters", "1e9"),
        InlineData("fp16.loss_scale_window", "1000"),
        InlineData("steps_per_print", "10"),
        InlineData("wall_clock_breakdown", "true"),
        InlineData("tensorboard", "{ \"enabled\": true }")
    ]
    [
        InlineData("wandb", "{ \"enabled\": true }"),
        InlineData("csv_monitor", "{ \"enabled\": true }"),
        InlineData("flops_profiler", "{ \"enabled\": true }"),
        InlineData("comms_logger", "{ \"enabled\": true }"),
        InlineData("prescale_gradients", "true"),
        InlineData("gradient_accumulation_steps", "4")
    ]
    public void Key_that_changes_nothing_is_told(string path, string value)
    {
        var file = Read(At(path, value));
        var warning = Assert.Single(file.Warnings);
        Assert.Equal((path, true), (warning.Path, warning.Warning));
        Assert.StartsWith("has no effect: ", warning.Message, StringComparison.Ordinal);
    }

    [
        Theory,
        InlineData("zero_optimization.stage", "\"two\"", "must be 0, 1, 2 or 3, found \"two\""),
        InlineData("zero_optimization.stage", "1.5", "must be 0, 1, 2 or 3, found 1.5"),
        InlineData("zero_optimization", "2", "must be true or false, found 2"),
        InlineData("zero_optimization.offload_optimizer", "\"cpu\"", "must be an object, found \"cpu\""),
        InlineData("train_batch_size", "-1", "must be a whole number above 0, found -1"),
        InlineData("train_micro_batch_size_per_gpu", "1e99", "must be a whole number above 0, found 1e99")
    ]
    [
        InlineData("gradient_clipping", "[1]", "must be a number, found [1]"),
        InlineData("bf16.enabled", "1", "must be true, false or \"auto\", found 1"),
        InlineData("bf16", "true", "must be an object, found true")
    ]
    public void Value_of_a_wrong_type_is_refused_with_what_was_found(string path, string value, string message)
    {
        var refusal = Assert.Single(Read(At(path, value)).Refusals);
        Assert.Equal((path, message, "MEMOPT0003"), (refusal.Path, refusal.Message, refusal.Code));
    }

    [Theory]
    [InlineData("gradient_clipping", "-1", "train.clip must be between 0")]
    [InlineData("train_batch_size", "2000000", "train.batchSize must be between 1 and 1048576")]
    public void Value_that_the_setting_cannot_have_is_refused_with_the_range(string path, string value, string message)
    {
        var refusal = Assert.Single(Read(At(path, value)).Refusals);
        Assert.Equal("MEMOPT0004", refusal.Code);
        Assert.Contains(message, refusal.Message, StringComparison.Ordinal);
    }

    [
        Theory,
        InlineData("zero_optimization.stge", "did you mean stage?"),
        InlineData("zero_optimization.overlap_com", "did you mean overlap_comm?"),
        InlineData("zero_optimization.offload_optimizer.devise", "did you mean device?"),
        InlineData("optimizer.parms", "has no type"),
        InlineData("gradient_cliping", "passes over it at the top (did you mean gradient_clipping?)")
    ]
    [
        InlineData("stage3_max_live_parameters", "move it into zero_optimization"),
        InlineData("offload_optimizer", "move it into zero_optimization"),
        InlineData("zero_optimization.stage.x", "must be 0, 1, 2 or 3")
    ]
    public void Unknown_key_is_refused_with_the_nearest_name(string path, string message) =>
        Assert.Contains(
            Read(At(path, "1")).Refusals,
            refusal => refusal.Message.Contains(message, StringComparison.Ordinal)
        );

    [Fact]
    public void Key_with_a_dot_in_its_name_is_not_the_key_of_that_path() =>
        Assert.Contains(
            "is no key of DeepSpeed",
            Assert.Single(Read("""{ "zero_optimization.stage": 2 }""").Refusals).Message,
            StringComparison.Ordinal
        );

    [Fact]
    public void Both_precisions_are_refused()
    {
        var file = Read("""{ "bf16": { "enabled": true }, "fp16": { "enabled": true } }""");
        Assert.Equal(["bf16.enabled", "fp16.enabled"], file.Refusals.Select(refusal => refusal.Path));
    }

    // train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks
    [
        Theory,
        InlineData(64, 4, 2, 8, "train.batchSize=64 train.microBatch=4"),
        InlineData(64, 4, null, 8, "train.batchSize=64 train.microBatch=4"),
        InlineData(64, null, 2, 8, "train.batchSize=64 train.microBatch=4"),
        InlineData(null, 4, 2, 8, "train.microBatch=4 train.batchSize=64"),
        InlineData(null, 4, null, 8, "train.microBatch=4 train.batchSize=32"),
        InlineData(64, null, null, 8, "train.batchSize=64 train.microBatch=8"),
        InlineData(null, null, 2, 8, "")
    ]
    public void Two_numbers_of_a_batch_give_the_third(int? all, int? micro, int? steps, int ranks, string settings) =>
        Assert.Equal(settings, Settings(Read(Batch(all, micro, steps), ranks)));

    [
        Theory,
        InlineData(64, 4, 2, 4, "4 x 2 x 4 = 32; use 8 ranks (--gpus 8, or distributed.gpus)"),
        InlineData(30, 4, 2, 4, "4 x 2 x 4 = 32; change one of the three"),
        InlineData(30, 4, null, 2, "is 30, which 4 x 2 ranks do not divide"),
        InlineData(30, null, 4, 2, "is 30, which 4 x 2 ranks do not divide"),
        InlineData(30, null, null, 4, "is 30, which 4 ranks do not divide")
    ]
    public void Batch_that_is_no_product_is_refused_with_the_product(
        int? all,
        int? micro,
        int? steps,
        int ranks,
        string message
    )
    {
        var refusal = Assert.Single(Read(Batch(all, micro, steps), ranks).Refusals);
        Assert.Equal("train_batch_size", refusal.Path);
        Assert.Contains(message, refusal.Message, StringComparison.Ordinal);
    }

    [
        Theory,
        InlineData("\"auto\"", "4", "\"auto\"", "train.microBatch=4"),
        InlineData("64", "\"auto\"", "\"auto\"", "train.batchSize=64"),
        InlineData("\"auto\"", "\"auto\"", "8", ""),
        InlineData("64", "\"auto\"", "8", "train.batchSize=64 train.microBatch=4")
    ]
    public void Auto_in_a_batch_leaves_that_number_to_memopt(string all, string micro, string steps, string settings) =>
        Assert.Equal(
            settings,
            Settings(
                Read(
                    $$"""
                    { "train_batch_size": {{all}}, "train_micro_batch_size_per_gpu": {{micro}},
                      "gradient_accumulation_steps": {{steps}} }
                    """,
                    ranks: 2
                )
            )
        );

    private static string Batch(int? all, int? micro, int? steps) =>
        $$"""
            { "train_batch_size": {{all?.ToString() ?? "null"}},
              "train_micro_batch_size_per_gpu": {{micro?.ToString() ?? "null"}},
              "gradient_accumulation_steps": {{steps?.ToString() ?? "null"}} }
            """;

    private static DeepSpeedFile Optimizer(string parameters, string type = "AdamW") =>
        Read($$"""{ "optimizer": { "type": "{{type}}", "params": { {{parameters}} } } }""");

    [
        Theory,
        InlineData("\"lr\": 3e-5", "train.optimizer=\"adamw\" train.learningRate=3e-5"),
        InlineData("\"lr\": \"auto\"", "train.optimizer=\"adamw\""),
        InlineData("", "train.optimizer=\"adamw\" train.learningRate=0.001"),
        InlineData(
            "\"lr\": 1, \"betas\": [0.8, 0.9]",
            "train.optimizer=\"adamw\" train.learningRate=1 train.betas=[0.8,0.9]"
        ),
        InlineData("\"lr\": 1, \"eps\": 1e-6", "train.optimizer=\"adamw\" train.learningRate=1 train.epsilon=1e-6"),
        InlineData(
            "\"lr\": 1, \"weight_decay\": 0.01, \"torch_adam\": true",
            "train.optimizer=\"adamw\" train.learningRate=1 train.weightDecay=0.01"
        )
    ]
    public void Optimizer_parameters_become_settings(string parameters, string settings)
    {
        foreach (var type in new[] { "Adam", "AdamW", "FusedAdam" })
            Assert.Equal(settings, Settings(Optimizer(parameters, type)));
    }

    [
        Theory,
        InlineData("\"adam_w_mode\": false", "Adam with L2 decay is not there"),
        InlineData("\"bias_correction\": false", "is not there"),
        InlineData("\"amsgrad\": true", "is not there"),
        InlineData("\"betas\": [0.9]", "must be two numbers from 0 to below 1, found [0.9]"),
        InlineData("\"betas\": [0.9, 1]", "must be two numbers from 0 to below 1"),
        InlineData("\"freeze_step\": 100", "is no key of optimizer.params")
    ]
    public void Optimizer_parameter_that_is_not_AdamWs_is_refused(string parameter, string message) =>
        Assert.Contains(message, Assert.Single(Optimizer(parameter).Refusals).Message, StringComparison.Ordinal);

    private static DeepSpeedFile Scheduler(string type, string parameters, string before = "") =>
        Read($$"""{ {{before}} "scheduler": { "type": "{{type}}", "params": { {{parameters}} } } }""");

    // lr_schedules.py: warmup_max_lr 0.001, warmup_num_steps 1000, warmup_type log
    [
        Theory,
        InlineData("WarmupLR", "\"warmup_max_lr\": 1e-4, \"warmup_num_steps\": 5", "constant", "1e-4", "5"),
        InlineData("WarmupDecayLR", "\"warmup_max_lr\": 1e-4, \"warmup_num_steps\": 5", "linear", "1e-4", "5"),
        InlineData("WarmupLR", "", "constant", "0.001", "1000"),
        InlineData("WarmupLR", "\"warmup_max_lr\": \"auto\", \"warmup_num_steps\": \"auto\"", "constant", null, null),
        InlineData("WarmupCosineLR", "\"warmup_num_steps\": 5", "cosine", null, "5")
    ]
    public void Scheduler_becomes_schedule_peak_and_warm_up(
        string type,
        string parameters,
        string schedule,
        string? rate,
        string? warmup
    )
    {
        var settings = Scheduler(type, parameters)
            .Assignments.ToDictionary(each => each.Assignment.Setting, each => each.Assignment.Value);
        Assert.Equal($"\"{schedule}\"", settings["train.schedule"]);
        Assert.Equal(rate, settings.GetValueOrDefault("train.learningRate"));
        Assert.Equal(warmup, settings.GetValueOrDefault("train.warmup"));
    }

    [
        Theory,
        InlineData("WarmupLR", "\"warmup_type\": \"log\"", "memopt's warm-up is linear"),
        InlineData("WarmupLR", "\"warmup_min_lr\": 1e-6", "begins at 0"),
        InlineData("WarmupDecayLR", "\"total_num_steps\": 0", "a number of steps"),
        InlineData("WarmupCosineLR", "\"cos_min_ratio\": 0.1", "ends at 0"),
        InlineData("WarmupCosineLR", "\"warmup_max_lr\": 0.1", "no parameter of WarmupCosineLR"),
        InlineData("WarmupLR", "\"last_batch_iteration\": 7", "memopt resumes from its own checkpoints")
    ]
    public void Scheduler_parameter_that_changes_the_rate_is_refused(string type, string parameter, string message) =>
        Assert.Contains(message, Assert.Single(Scheduler(type, parameter).Refusals).Message, StringComparison.Ordinal);

    [Fact]
    public void Warm_up_without_a_type_is_told_as_linear()
    {
        var warning = Assert.Single(Scheduler("WarmupLR", "").Warnings);
        Assert.Equal(("scheduler.params.warmup_type", 0), (warning.Path, warning.Line));
    }

    [Fact]
    public void Learning_rate_beside_a_scheduler_that_sets_it_has_no_effect()
    {
        var file = Scheduler(
            "WarmupLR",
            "\"warmup_max_lr\": 1e-4, \"warmup_num_steps\": 5, \"warmup_type\": \"linear\"",
            "\"optimizer\": { \"type\": \"Adam\", \"params\": { \"lr\": 0.5 } },"
        );
        Assert.Equal("optimizer.params.lr", Assert.Single(file.Warnings).Path);
        Assert.Contains("train.learningRate=1e-4", Settings(file), StringComparison.Ordinal);
    }

    [
        Theory,
        InlineData("{ \"bf16\": ", 1, "not valid JSON"),
        InlineData("{\n  \"bf16\": {},\n  // no\n}", 3, "not valid JSON"),
        InlineData("{\n  \"bf16\": {},\n  \"bf16\": {}\n}", 3, "is written twice"),
        InlineData("[]", 1, "must be an object, found a list"),
        InlineData("\"\\ud800\"", 1, "half of a surrogate pair"),
        InlineData("", 1, "not valid JSON")
    ]
    public void File_that_is_no_JSON_is_refused_with_its_place(string text, int line, string message)
    {
        var problem = Assert.Single(Assert.Throws<UserFault>(() => Read(text)).Problems);
        Assert.Equal(line, problem.Line);
        Assert.True(problem.Column > 0);
        Assert.Contains(message, problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void File_that_is_deep_is_refused()
    {
        const int depth = 100_000;
        var text = new StringBuilder().Insert(0, "{\"a\":", depth).Append('1').Append('}', depth).ToString();
        var problem = Assert.Single(Assert.Throws<UserFault>(() => Read(text)).Problems);
        Assert.Contains("depth", problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void File_that_is_too_long_is_refused()
    {
        var path = Write("{}");
        using (var file = File.OpenWrite(path))
            file.SetLength(UntrustedFile.Settings + 1L);
        Assert.Contains(
            "longer than",
            Assert.Throws<UserFault>(() => DeepSpeedFile.Read(path, 1)).Message,
            StringComparison.Ordinal
        );
    }

    [Fact]
    public void File_with_very_many_keys_is_refused()
    {
        var text = "{" + string.Join(',', Enumerable.Range(0, 20_000).Select(at => $"\"k{at}\":1")) + "}";
        var problem = Assert.Single(Assert.Throws<UserFault>(() => Read(text)).Problems);
        Assert.Contains("more than 20,000 values", problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void File_that_is_missing_is_refused_with_what_to_name() =>
        Assert.Contains(
            "--deepspeed",
            Assert.Throws<UserFault>(() => DeepSpeedFile.Read("/nowhere/ds.json", 1)).Next,
            StringComparison.Ordinal
        );
}
