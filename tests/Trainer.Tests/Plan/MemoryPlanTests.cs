using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Tests.Plan;

public sealed class MemoryPlanTests
{
    private static readonly ModelSpec llama = ModelSpec.Read(TestBackend.Golden("llama"));

    private static MemoryPlan Plan(RunConfig config, long? free = null) =>
        MemoryPlan.For(config, llama, new PlanDevice("cpu", free, 4), 24);

    // Counted by hand from the shape: hidden 64, 4 heads of 16, 2 key-value heads, MLP 112, 3 layers, vocabulary 160,
    // untied.
    private const long LayerLinears = 64 * 64 + 2 * (64 * 32) + 64 * 64 + 2 * (64 * 112) + 112 * 64;
    private const long Others = 2 * 160 * 64 + 3 * 2 * 64 + 64;

    [Fact]
    public void Weights_adapters_gradients_and_optimizer_are_exact()
    {
        var plan = Plan(
            new RunConfig
            {
                Adapter = new() { Rank = 8 },
                Train = new() { BatchSize = 2 },
            }
        );
        long adapter = 3 * 8 * (64 + 64 + 2 * (64 + 32) + 64 + 64 + 2 * (64 + 112) + 112 + 64);
        Assert.Equal((Others + 3 * LayerLinears) * 4, Row(plan, MemoryPlan.Weights));
        Assert.Equal(
            (adapter * 4, adapter * 4, adapter * 8),
            (Row(plan, MemoryPlan.Adapters), Row(plan, MemoryPlan.Gradients), Row(plan, MemoryPlan.Optimizer))
        );
    }

    [Fact]
    public void Adapted_head_is_counted()
    {
        var config = new RunConfig
        {
            Adapter = new() { Rank = 8 },
            Train = new() { BatchSize = 2 },
        };
        var every = new Targets([
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "lm_head",
        ]);
        var with = Plan(config with { Adapter = config.Adapter with { Targets = every } });
        Assert.Equal(8 * (64 + 160) * 4, Row(with, MemoryPlan.Adapters) - Row(Plan(config), MemoryPlan.Adapters));
    }

    [Fact]
    public void Fused_attention_alone_keeps_its_result()
    {
        var config = new RunConfig
        {
            Memory = new() { Strategy = MemoryStrategy.Manual, Recompute = true },
            Train = new() { BatchSize = 2 },
        };
        MemoryPlan Of(bool fused, SavedForBackward keep) =>
            MemoryPlan.For(
                config with
                {
                    Memory = config.Memory with { Keep = keep },
                },
                llama,
                new PlanDevice("cuda", null, 2) { FusedAttention = fused },
                24
            );
        // Two layers' results of 64 numbers a token in two bytes, and four fp32 sums: the last layer is run once.
        Assert.Equal(
            2 * 48 * (64 * 2 + 4 * 4),
            Row(Of(true, SavedForBackward.Attention), MemoryPlan.Activations)
                - Row(Of(true, SavedForBackward.Nothing), MemoryPlan.Activations)
        );
        Assert.Equal(
            Row(Of(false, SavedForBackward.Nothing), MemoryPlan.Activations),
            Row(Of(false, SavedForBackward.Attention), MemoryPlan.Activations)
        );
        Assert.True(
            Row(Of(false, SavedForBackward.Nothing), MemoryPlan.Activations)
                > Row(Of(true, SavedForBackward.Nothing), MemoryPlan.Activations)
        );
    }

    [Fact]
    public void Quantized_weights_are_counted_as_they_are_stored()
    {
        var plan = Plan(
            new RunConfig
            {
                Adapter = new() { Kind = AdapterKind.Qlora },
                Train = new() { BatchSize = 2 },
            }
        );
        // Half a byte a weight, one byte a block of 64, four bytes for up to 256 blocks and four for the offset, linear
        // by linear.
        static long Stored(long weights) => weights / 2 + weights / 64 + 4 * ((weights / 64 + 255) / 256) + 4;
        var layer = 2 * Stored(64 * 64) + 2 * Stored(64 * 32) + 3 * Stored(64 * 112);
        Assert.Equal(Others * 4 + 3 * layer, Row(plan, MemoryPlan.Weights));
    }

    [Fact]
    public void Auto_selects_the_fastest_strategy_that_fits()
    {
        var config = new RunConfig { Train = new() { BatchSize = 8 } };
        var device = new PlanDevice("cpu", null, 4);
        var ladder = MemoryPlan.Ladder(config, llama, device, 24);
        Assert.Equal(new Rung(8), Plan(config).Rung);
        foreach (var budget in ladder.Select(plan => plan.PeakBytes * 103 / 100))
        {
            var chosen = Plan(config, budget);
            Assert.True(chosen.Fits && chosen.PeakBytes <= budget);
            Assert.DoesNotContain(
                ladder.TakeWhile(plan => plan.Rung != chosen.Rung),
                plan => plan.PeakBytes <= budget * 98 / 100
            );
        }
        Assert.False(Plan(config, 1000).Fits);
        // What is written is kept.
        Assert.All(
            MemoryPlan.Ladder(
                config with
                {
                    Memory = new() { Recompute = true, StreamLayers = 2 },
                },
                llama,
                device,
                24
            ),
            plan => Assert.True(plan.Rung is { Recompute: true, StreamLayers: 2 })
        );
        Assert.All(
            MemoryPlan.Ladder(config with { Train = config.Train with { MicroBatch = 2 } }, llama, device, 24),
            plan => Assert.Equal(2, plan.Rung.MicroBatch)
        );
    }

    [Fact]
    public void Offloaded_bytes_are_counted_on_the_host_or_the_disk()
    {
        var config = new RunConfig
        {
            Memory = new() { Strategy = MemoryStrategy.Manual, Recompute = true },
            Train = new() { BatchSize = 2 },
        };
        MemoryPlan Of(Func<MemoryConfig, MemoryConfig> with, long? host = null) =>
            MemoryPlan.For(
                config with
                {
                    Memory = with(config.Memory),
                },
                llama,
                new PlanDevice("cuda", null, 2, HostBytes: host) { FusedAttention = true },
                24
            );
        var plain = Of(memory => memory);
        // All three layers' weights leave, and two slots come.
        var streamed = Of(memory => memory with { StreamLayers = 3 });
        Assert.Equal(Row(plain, MemoryPlan.Weights) - 3 * LayerLinears * 2, Row(streamed, MemoryPlan.Weights));
        Assert.Equal(
            (3 * LayerLinears * 2, 2 * LayerLinears * 2),
            (Row(streamed, MemoryPlan.HostWeights), Row(streamed, MemoryPlan.Slots))
        );
        Assert.Equal(
            "disk",
            Of(memory => memory with { StreamLayers = 3 }, host: 1000)
                .Rows.Single(row => row.Name == MemoryPlan.HostWeights)
                .Place
        );
        // Two layers' inputs of 64 numbers a token in two bytes.
        Assert.Equal(
            2 * 48 * 64 * 2,
            Row(Of(memory => memory with { OffloadActivations = true }), MemoryPlan.HostActivations)
        );
        var optimizer = Of(memory => memory with { OffloadOptimizer = true });
        Assert.Equal(12 * plain.Trained, Row(optimizer, MemoryPlan.HostOptimizer));
        Assert.Equal(2 * plain.Trained, Row(optimizer, MemoryPlan.Adapters));
    }

    /// <summary>An evaluation of two rows holds two rows, whatever a step of training holds; one of more is made in the
    /// run's micro-batches.</summary>
    [Theory]
    [InlineData(2, 2)]
    [InlineData(8, 8)]
    [InlineData(500, 8)]
    public void Evaluation_is_counted_with_its_rows(int rows, int atOnce)
    {
        RunConfig Of(int micro) =>
            new()
            {
                Memory = new() { Strategy = MemoryStrategy.Manual, Recompute = true },
                Train = new() { BatchSize = micro, MicroBatch = micro },
            };
        MemoryPlan Plan(int micro, int? judged) =>
            MemoryPlan.For(Of(micro), llama, new PlanDevice("cpu", null, 4), 24, 2048, judged);
        // What the evaluation takes is what it adds to training, with what training takes.
        static long Taken(MemoryPlan plan) =>
            plan
                .Rows.Where(row => row.Name is MemoryPlan.Activations or MemoryPlan.WorkingSet or MemoryPlan.Evaluation)
                .Sum(row => row.Bytes);
        Assert.Equal(Taken(Plan(atOnce, null)), Taken(Plan(8, rows)));
    }

    /// <summary>Each of two context parallel ranks saves half of what one rank does, and the keys and values of whole
    /// rows: for the fused kernels once, and those before the end of its first piece again.</summary>
    [Fact]
    public void Context_parallel_ranks_save_their_tokens_and_the_keys_of_whole_rows()
    {
        var config = new RunConfig
        {
            Memory = new() { Strategy = MemoryStrategy.Manual, Recompute = false },
            Train = new() { BatchSize = 2, MicroBatch = 1 },
        };
        MemoryPlan Of(int ranks) =>
            MemoryPlan.For(
                config,
                llama,
                new PlanDevice("cuda", null, 2)
                {
                    FusedAttention = true,
                    Ranks = ranks,
                    ContextRanks = ranks,
                },
                64
            );
        // Three layers, 32 numbers of a key and of a value, in two bytes; 64 + 16 places of them.
        Assert.Equal(
            Row(Of(1), MemoryPlan.Activations) / 2 + 3 * 2 * 32 * 2 * (64 + 16),
            Row(Of(2), MemoryPlan.Activations)
        );
        Assert.Equal(Row(Of(1), MemoryPlan.Weights), Row(Of(2), MemoryPlan.Weights));
    }

    private static long Row(MemoryPlan plan, string name) => plan.Rows.Single(row => row.Name == name).Bytes;
}
