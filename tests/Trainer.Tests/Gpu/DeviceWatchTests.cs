using Memopt.Trainer.Native;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>A run as other programs on the card see it.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(ExclusiveCollection.Name)]
public sealed class DeviceWatchTests
{
    private static readonly Shape shape = new(1024, 2816, 12, 16, 8, 32000);

    // Loads, rehearses, trains, saves, evaluates.
    [GpuTheory, InlineData("lora"), InlineData("qlora"), InlineData("none")]
    public void Run_never_holds_more_than_its_plan_and_a_twentieth(string kind)
    {
        Cuda.EmptyCache(Gpu.Device);
        using var watch = new DeviceWatch();
        var run = new RandomRun(
            shape,
            $$""" "kind": "{{kind}}" """,
            """ "batchSize": 8, "microBatch": 8, "steps": 6, "learningRate": 1e-4 """,
            """ "checkpoint": { "every": 2 } """
        );
        run.Run(Backend.Load(null, TestBackend.Environment));
        Within(run, watch);
    }

    // A competing program takes memory twice, so that the run goes down twice.
    [GpuFact]
    public void Run_after_memory_refusals_never_holds_more_than_its_plan_and_a_twentieth()
    {
        Cuda.EmptyCache(Gpu.Device);
        using var competitor = new CompetingProgram();
        using var watch = new DeviceWatch(() => competitor.Bytes);
        var run = new RandomRun(
            shape,
            """ "kind": "lora" """,
            """ "batchSize": 8, "microBatch": 8, "steps": 8, "learningRate": 1e-4 """
        )
        {
            OnStep = row =>
            {
                if (row.Step is 2 or 4)
                    competitor.Grow();
            },
        };
        run.Run(Backend.Load(null, TestBackend.Environment));
        Assert.True(run.Events.Count >= 2, string.Join('\n', run.Events.Select(e => e.Text)));
        Within(run, watch);
    }

    private static void Within(RandomRun run, DeviceWatch watch)
    {
        var (planned, held) = (run.Planned.Where(row => row.Place == "device").Sum(row => row.Bytes), watch.Peak);
        Console.WriteLine(
            $"  planned {planned:N0}, held {held:N0} ({(double)held / planned:P1}), {watch.Samples} readings"
        );
        Assert.True(watch.Samples >= 20, $"{watch.Samples} readings");
        Assert.True(held <= planned * 1.05, $"planned {planned:N0}, held {held:N0}");
    }
}
