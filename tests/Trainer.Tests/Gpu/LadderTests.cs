using Memopt.Trainer.Native;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Something else takes the card's memory while a run goes on.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(ExclusiveCollection.Name)]
public sealed class LadderTests
{
    private static readonly Shape shape = new(768, 2048, 12, 12, 4, 4096);

    [GpuTheory, InlineData("lora", true), InlineData("qlora", true), InlineData("lora", false)]
    public void Run_beside_a_program_that_takes_memory_continues(string kind, bool sameMicroBatch)
    {
        var (alone, pressed) = (Train(kind, sameMicroBatch, []), Train(kind, sameMicroBatch, [2, 4, 6]));
        Assert.Empty(alone.Events);
        Assert.True(pressed.Events.Count >= 3, string.Join('\n', pressed.Events.Select(e => e.Text)));
        if (sameMicroBatch)
            Assert.Equal(alone.Losses, pressed.Losses); // no rung but the micro-batch changes a bit
        else
            Assert.All(
                alone.Losses.Zip(pressed.Losses),
                pair => Assert.Equal(pair.First, pair.Second, pair.First * 5e-3)
            );
        Console.WriteLine(string.Join('\n', pressed.Events.Select(e => $"  step {e.Step}: {e.Text}")));
    }

    private static RandomRun Train(string kind, bool sameMicroBatch, int[] growAfter)
    {
        using var competitor = new CompetingProgram();
        var microBatch = sameMicroBatch ? ", \"microBatch\": 4" : "";
        var run = new RandomRun(
            shape,
            $$""" "kind": "{{kind}}" """,
            $$""" "batchSize": 8, "steps": 8, "learningRate": 1e-4{{microBatch}} """
        )
        {
            OnStep = row =>
            {
                if (growAfter.Contains(row.Step))
                    competitor.Grow();
            },
        };
        run.Run(Backend.Load(null, TestBackend.Environment));
        return run;
    }
}

/// <summary>Another program on the card.</summary>
internal sealed class CompetingProgram : IDisposable
{
    private readonly List<nint> taken = [];

    /// <summary>Bytes that it holds.</summary>
    public long Bytes { get; private set; }

    /// <summary>Takes memory until nine tenths are left of what the steps of a run have cached.</summary>
    public void Grow()
    {
        var before = Cuda.FreeBytes()!.Value;
        Cuda.EmptyCache(Gpu.Device);
        var after = Cuda.FreeBytes()!.Value;
        var bytes = after - (after - before) * 9 / 10;
        Bytes += bytes; // first: a watch never takes these for the run's
        taken.Add(Cuda.Take(bytes));
    }

    public void Dispose()
    {
        taken.ForEach(Cuda.GiveBack);
        Cuda.EmptyCache(Gpu.Device);
    }
}
