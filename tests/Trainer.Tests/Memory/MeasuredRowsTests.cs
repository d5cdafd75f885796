using Memopt.Tracking;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Tests.Gpu;

namespace Memopt.Trainer.Tests.Memory;

/// <summary>The measured rows of a run beside the bytes of its tensors, counted by hand from the model's
/// shape.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class MeasuredRowsTests
{
    private const int Rank = 256;

    // The norm's partial sums, which the plan does not count.
    private const long Scratch = 1 << 16;

    private static readonly Shape small = new(256, 704, 4, 8, 4, 4096),
        large = new(768, 2048, 12, 12, 4, 4096);

    [Theory, InlineData("lora"), InlineData("qlora"), InlineData("none")]
    public void Measured_rows_equal_the_bytes_of_their_tensors(string kind)
    {
        var backend = Backend.Load(null, TestBackend.Environment);
        var run = new RandomRun(small, Adapter(kind), """ "batchSize": 2, "steps": 2, "learningRate": 1e-4 """)
        {
            Rows = 4,
            Length = 64,
        };
        run.Run(backend);
        Check(run, Expected(small, kind, backend.Kind == "cuda" ? 2 : 4, onHost: false));
    }

    [
        GpuTheory,
        InlineData("lora", false),
        InlineData("qlora", false),
        InlineData("none", false),
        InlineData("none", true),
        InlineData("lora", true)
    ]
    [Trait(Gpu.Gpu.Trait, Gpu.Gpu.Name)]
    public void Measured_rows_on_a_GPU_equal_the_bytes_of_their_tensors(string kind, bool onHost)
    {
        var memory = $$""" "memory": { "offloadOptimizer": {{(onHost ? "true" : "false")}}, "streamLayers": 0 } """;
        var run = new RandomRun(large, Adapter(kind), """ "batchSize": 4, "steps": 2, "learningRate": 1e-4 """, memory);
        run.Run(Backend.Load(null, TestBackend.Environment));
        Check(run, Expected(large, kind, 2, onHost));
    }

    private static string Adapter(string kind) =>
        $$""" "kind": "{{kind}}", "rank": {{(kind == "none" ? 16 : Rank)}} """;

    /// <param name="shape">Of the model.</param>
    /// <param name="kind">Of the adapter.</param>
    /// <param name="compute">Bytes of a number in the compute type.</param>
    /// <param name="onHost">Whether the optimizer lies on the host.</param>
    private static IEnumerable<(string Row, long Bytes)> Expected(Shape shape, string kind, int compute, bool onHost)
    {
        var full = kind == "none";
        var trained = full ? shape.Parameters : shape.Adapters(Rank);
        if (!full)
            yield return (
                MemoryPlan.Weights,
                kind == "lora" ? shape.Parameters * compute : shape.Others * compute + shape.Nf4
            );
        // fp32 values and, for narrower products, a copy.
        yield return (
            full ? MemoryPlan.TrainedWeights : MemoryPlan.Adapters,
            trained * ((onHost ? 0 : 4) + (compute < 4 ? compute : 0))
        );
        yield return (MemoryPlan.Gradients, trained * 4);
        if (!onHost)
        {
            yield return (MemoryPlan.Optimizer, trained * 8);
            yield break;
        }
        // Two pieces of value and moments on the device.
        yield return (MemoryPlan.Optimizer, 2 * 12 * Math.Min(trained, 8 << 20));
        yield return (MemoryPlan.HostOptimizer, trained * 12);
        yield return (MemoryPlan.Staging, 128 << 20);
    }

    private static void Check(RandomRun run, IEnumerable<(string Row, long Bytes)> expected)
    {
        foreach (var (name, bytes) in expected)
        {
            var row = Assert.Single(run.Measured, row => row.Name == name);
            Assert.True(
                row.Measured is { } measured && Math.Abs(measured - bytes) <= Scratch,
                $"{name}: {bytes:N0} bytes by hand, measured {row.Measured:N0}, planned {row.Bytes:N0}\n"
                    + string.Join(
                        '\n',
                        run.Measured.Select(other => $"  {other.Name}: {other.Bytes:N0}, measured {other.Measured:N0}")
                    )
            );
        }
        Assert.DoesNotContain(run.Measured, row => row.Bytes == 0);
    }
}
