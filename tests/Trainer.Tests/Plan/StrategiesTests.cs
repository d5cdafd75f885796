using System.Diagnostics;
using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Tests.Plan;

/// <summary>Plans of published models from their config.json alone.</summary>
public sealed class StrategiesTests
{
    // As the weights' own metadata on the Hugging Face Hub state them.
    [Theory]
    [
        InlineData("llama-3.1-8b", 8_030_261_248),
        InlineData("llama-3.1-70b", 70_553_706_496),
        InlineData("qwen2.5-7b", 7_615_616_512),
        InlineData("qwen2.5-14b", 14_770_033_664)
    ]
    [
        InlineData("qwen2.5-32b", 32_763_876_352),
        InlineData("qwen2.5-72b", 72_706_203_648),
        InlineData("mistral-7b-v0.1", 7_241_732_096)
    ]
    public void Parameters_equal_the_published_counts_and_plans_are_quick(string model, long parameters)
    {
        var watch = Stopwatch.StartNew();
        var spec = Spec(model);
        Assert.Equal(parameters, spec.Parameters);
        foreach (var gpu in Gpus.Known)
        {
            var all = Of(spec, gpu);
            Assert.Equal(gpu.Bf16 ? 31 : 25, all.Count);
            Assert.Equal(6, all.Count(s => s.Devices > 1));
            Assert.All(all, s => Assert.Equal(s.Fits, s.MaxMicroBatch > 0));
            Assert.All(all, s => Assert.Equal(s.Fits, s.MaxSequence >= 1024));
        }
        Assert.InRange(watch.Elapsed.TotalMinutes, 0, 5); // whatever else the machine does
    }

    [Fact]
    public void Strategies_of_known_models_on_known_cards_fit_as_published()
    {
        static Strategy By(IReadOnlyList<Strategy> all, string name) => all.Single(s => s.Name == name);
        var (small, large) = (
            Of(Spec("qwen2.5-7b"), Gpus.Find("RTX 4090")),
            Of(Spec("llama-3.1-70b"), Gpus.Find("h200"))
        );
        Assert.True(By(small, "QLoRA + recompute").Fits && !By(small, "full + recompute").Fits);
        Assert.True(
            By(large, "QLoRA + recompute").Fits && !By(large, "full + recompute").Fits && !By(large, "LoRA").Fits
        );
        // Recomputation gives up speed for memory, step by step; what leaves the device takes less of it.
        foreach (var kind in new[] { "LoRA", "QLoRA", "full" })
        {
            var steps = new[] { "", " + recompute, both kept", " + recompute, attention kept", " + recompute" }
                .Select(step => By(small, kind + step))
                .ToList();
            Assert.Equal(steps.OrderByDescending(s => s.PeakBytes), steps);
            Assert.Equal(steps.OrderByDescending(s => s.RelativeSpeed), steps);
            Assert.True(By(small, kind + " + recompute, activations offloaded").PeakBytes < steps[^1].PeakBytes);
        }
        Assert.True(
            By(small, "LoRA + recompute, weights streamed").PeakBytes
                < By(small, "LoRA + recompute").PeakBytes - 10L * (1 << 30)
        );
        // ZeRO's published table: with P parameters, 18 bytes each without it, stage 3 takes 18 P / N and the gathered
        // layers.
        var (full, zero) = (By(small, "full + recompute"), By(small, "full + recompute, ZeRO-3 over 2 GPUs"));
        var states = 18 * Spec("qwen2.5-7b").Parameters;
        Assert.InRange((double)(full.PeakBytes - zero.PeakBytes) / states, 0.40, 0.50);
        Assert.Equal(1, By(small, "LoRA").RelativeSpeed);
    }

    [Theory]
    [
        InlineData("RTX 4090", 24564),
        InlineData("nvidia geforce rtx4090", 24564),
        InlineData("a100-80GB", 81920),
        InlineData("24GiB", 24576),
        InlineData("7.5", 7680),
        InlineData("16 GB", 16384)
    ]
    public void Cards_are_found_by_name_or_memory(string text, int mib) => Assert.Equal(mib, Gpus.Find(text).MiB);

    [Theory, InlineData("RTX 9999"), InlineData(""), InlineData("-3GiB"), InlineData("GiB")]
    public void Card_that_is_unknown_is_refused(string text) =>
        Assert.Contains("H200", Assert.Throws<UserFault>(() => Gpus.Find(text)).Next);

    internal static ModelSpec Spec(string model) =>
        ModelSpec.Read(
            Path.Combine(TestBackend.Repository, "tests", "Trainer.Tests", "Plan", "configs", model + ".json")
        );

    private static IReadOnlyList<Strategy> Of(ModelSpec spec, Trainer.Plan.Gpu gpu) =>
        Strategies.Of(new RunConfig(), spec, PlanDevice.Of(gpu), 1024);
}
