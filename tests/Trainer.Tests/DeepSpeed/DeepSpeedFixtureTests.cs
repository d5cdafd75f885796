using System.Text.Json;
using Memopt.Trainer.Config.DeepSpeed;

namespace Memopt.Trainer.Tests.DeepSpeed;

/// <summary>Files of the shapes that public projects publish: the Trainer of transformers, collections of recipes,
/// DeepSpeed's own examples.</summary>
public sealed class DeepSpeedFixtureTests
{
    private static string Folder =>
        Path.Combine(TestBackend.Repository, "tests", "Trainer.Tests", "DeepSpeed", "Files");

    public static TheoryData<string> Files =>
        [.. Directory.GetFiles(Folder, "*.json").Select(file => Path.GetFileName(file))];

    [Theory, MemberData(nameof(Files))]
    public void Fixture_with_any_keys_has_each_of_them_accounted_for(string name)
    {
        var file = Path.Combine(Folder, name);
        var keys = DeepSpeedFile.Read(file, ranks: 2).Keys.Where(key => key.Value is not null).ToList();
        Assert.All(Leaves(Root(file)), leaf => Assert.Single(keys, key => leaf == key.Key || Inside(leaf, key.Key)));
        Assert.All(keys, key => Assert.True(key.Line > 0 && key.Column > 0, key.Key));
        Assert.All(
            keys.Where(key => key.Verdict.Outcome != KeyOutcome.Honoured),
            key => Assert.NotEmpty(key.Verdict.Why)
        );
    }

    [
        Theory,
        InlineData(
            "trainer-zero2-auto.json",
            "train.optimizer=\"adamw\" train.schedule=\"constant\" distributed.strategy=\"zero2\""
        ),
        InlineData(
            "recipes-zero1.json",
            "distributed.strategy=\"zero1\" model.dtype=\"bfloat16\" train.batchSize=16 train.clip=1.0 "
                + "train.microBatch=2"
        ),
        InlineData("recipes-zero1-compile.json", "distributed.strategy=\"zero1\""),
        InlineData(
            "factory-zero2-offload.json",
            "model.dtype=\"bfloat16\" distributed.strategy=\"zero2\" memory.offloadOptimizer=true"
        ),
        InlineData(
            "chat-step.json",
            "train.batchSize=32 train.microBatch=4 distributed.strategy=\"ddp\" memory.offloadOptimizer=false "
                + "model.dtype=\"float16\" train.clip=1.0"
        ),
        InlineData(
            "pretraining-fp16.json",
            "train.batchSize=128 train.microBatch=8 train.optimizer=\"adamw\" train.betas=[0.9,0.95] "
                + "train.epsilon=1e-8 "
                + "train.weightDecay=0.1 train.schedule=\"linear\" train.steps=5000 train.learningRate=6e-4 "
                + "train.warmup=200 train.clip=1.0 model.dtype=\"float16\" distributed.strategy=\"zero1\" "
                + "memory.recompute=true"
        ),
        InlineData(
            "old-form.json",
            "train.microBatch=8 train.batchSize=16 distributed.strategy=\"zero2\" memory.offloadOptimizer=true "
                + "model.dtype=\"float16\" train.schedule=\"constant\" train.learningRate=1e-4 train.warmup=10000"
        ),
        InlineData(
            "old-flag.json",
            "train.batchSize=16 train.microBatch=8 distributed.strategy=\"zero1\" model.dtype=\"float16\""
        ),
        InlineData(
            "cosine-bf16.json",
            "train.batchSize=64 train.microBatch=2 train.optimizer=\"adamw\" train.learningRate=2e-5 "
                + "train.weightDecay=0.0 train.schedule=\"cosine\" train.steps=1000 train.warmup=30 "
                + "model.dtype=\"bfloat16\" distributed.strategy=\"zero2\""
        )
    ]
    public void Fixture_that_is_honoured_becomes_these_settings_on_two_ranks(string name, string settings)
    {
        var file = DeepSpeedFile.Read(Path.Combine(Folder, name), ranks: 2);
        Assert.Equal([], file.Refusals);
        Assert.Equal(
            settings.Split(' ').Order(StringComparer.Ordinal),
            file.Assignments.Select(each => $"{each.Assignment}").Order(StringComparer.Ordinal)
        );
    }

    [
        Theory,
        InlineData("trainer-zero3-auto.json", "zero_optimization.offload_param"),
        InlineData("factory-tensor-parallel.json", "tensor_parallel"),
        InlineData("nvme-infinity.json", "zero_optimization.offload_optimizer.device"),
        InlineData(
            "quantized-comm.json",
            "zero_optimization.zero_hpz_partition_size zero_optimization.zero_quantized_weights "
                + "zero_optimization.zero_quantized_gradients stage3_max_live_parameters"
        )
    ]
    public void Fixture_that_is_refused_names_every_key(string name, string keys) =>
        Assert.Equal(
            keys.Split(' '),
            DeepSpeedFile.Read(Path.Combine(Folder, name), ranks: 2).Refusals.Select(refusal => refusal.Path)
        );

    private static JsonElement Root(string file) => JsonDocument.Parse(File.ReadAllBytes(file)).RootElement;

    private static IEnumerable<string> Leaves(JsonElement owner, string prefix = "") =>
        owner
            .EnumerateObject()
            .SelectMany(property =>
                property.Value.ValueKind == JsonValueKind.Object
                    ? Leaves(property.Value, $"{prefix}{property.Name}.")
                    : [prefix + property.Name]
            );

    private static bool Inside(string leaf, string section) => leaf.StartsWith(section + ".", StringComparison.Ordinal);
}
