using Memopt.Trainer.Distributed;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>Context parallel against one rank, in every rank of one world.</summary>
/// <param name="world">The ranks.</param>
/// <param name="folder">The same new folder on all ranks.</param>
internal sealed class ContextParallelCases(World world, string folder)
{
    private const string Data = "\"data\": { \"train\": \"train.jsonl\", \"eval\": \"eval.jsonl\", \"maxLength\": 64 }",
        Packed =
            "\"data\": { \"train\": \"train.jsonl\", \"eval\": \"eval.jsonl\", \"maxLength\": 128, \"packing\": true }",
        Lora = "\"adapter\": { \"kind\": \"lora\", \"rank\": 4, \"dropout\": 0.1 }",
        Full = "\"adapter\": { \"kind\": \"none\" }",
        Train = "\"train\": { \"batchSize\": 4, \"microBatch\": 2, \"steps\": 20, \"learningRate\": 2e-4 }",
        Again = ", \"recompute\": true",
        Recompute = "\"memory\": { \"recompute\": true }";

    // Rows have up to 60 tokens.
    private const int Window = 16;

    public void Check()
    {
        switch (world.Size)
        {
            // The last step of an epoch has two of the ten rows.
            case 2:
                EqualsOneRank("lora", 2, [Data, Lora, Train], ["ddp", "zero3"]);
                EqualsOneRank("packed", 2, [Packed, Lora, Train, Recompute], ["zero1"], rows: 40);
                EqualsOneRank("full", 2, [Data, Full, Train, Recompute], ["ddp", "zero2"], window: Window);
                Short();
                // In the backward of four layers, or in their forward.
                if (DataParallelCases.IsFull)
                {
                    MemoryRunsOut(2, "zero2", readings: 9);
                    MemoryRunsOut(2, "zero3", readings: 3);
                }
                MemoryRunsOut(2, "zero3", readings: 9);
                MemoryRunsOut(2, "zero2", readings: 9, recompute: true);
                break;
            case 3:
                EqualsOneRank("lora on three", 3, [Data, Lora, Train], ["ddp"], window: Window);
                break;
            default:
                EqualsOneRank("and data", 2, [Data, Lora, Train], ["zero3"]);
                EqualsOneRank("and data full", 2, [Data, Full, Train], ["zero2"]);
                break;
        }
    }

    private RankTraining Training(string name, int ranks, IEnumerable<string> sections, int? window = null) =>
        new(world, Path.Combine(folder, "context " + name), string.Join(", ", sections))
        {
            Axes = $", \"context\": {ranks}",
            Shape = new(64, 128, 4, 4, 2, 1024) { Window = window },
        };

    private void EqualsOneRank(
        string name,
        int ranks,
        string[] sections,
        string[] strategies,
        int rows = 10,
        int? window = null
    )
    {
        using var training = Training(name, ranks, sections, window);
        training.Rows = rows;
        var single = training.RunSingle();
        foreach (var strategy in strategies)
        {
            var found = training.Run(world, strategy, strategy);
            DataParallelCases.MeasuredAsPlanned(found);
            if (single is not null)
                DataParallelCases.Same($"context {name} {strategy}", single, found, exact: false);
        }
    }

    /// <summary>Rows of which a rank has no prediction, and answers of which the model gives some, each over both
    /// ranks.</summary>
    private void Short()
    {
        var train = Train.Replace("\"microBatch\": 2", "\"microBatch\": 1").Replace("2e-4", "1e-3");
        using var training = new RankTraining(
            world,
            Path.Combine(folder, "context short"),
            string.Join(", ", Data, Full, train)
        )
        {
            Axes = ", \"context\": 2",
            Tokens = (2, 9),
            Token = random => random.Next(10) == 0 ? 8 : 7,
        };
        var single = training.RunSingle();
        var found = training.Run(world, "ranks", "ddp");
        Assert.InRange(found.Result.Score!.Accuracy, 0.01, 0.99);
        if (single is not null)
            DataParallelCases.Same("context short", single, found, exact: false);
    }

    /// <summary>On the last rank alone, which goes on with zeros while the others finish the step.</summary>
    private void MemoryRunsOut(int ranks, string strategy, int readings, bool recompute = false)
    {
        // The smaller rung: that with activation checkpointing, else that with a smaller micro-batch, whose masks of
        // dropout are others.
        var train = Train.Replace("\"microBatch\": 2, ", recompute ? "" : "\"microBatch\": 1, ");
        var memory = $"\"memory\": {{ \"streamLayers\": 0, \"rehearse\": false{(recompute ? Again : "")} }}";
        string[] sections = [Data, recompute ? Lora.Replace("0.1", "0") : Lora, train, memory];
        using var training = Training($"exhausted {strategy} {readings}{recompute}", ranks, sections);
        (training.Exhausted, training.Readings) = ((world.Size - 1, 3), readings);
        var found = training.Run(world, "ranks", strategy);
        training.Exhausted = null;
        if (training.RunSingle() is not { } single)
            return;
        Assert.Equal((2, "memory"), (Assert.Single(found.Events).Step, found.Events[0].Kind));
        DataParallelCases.Same($"context exhausted {strategy} {readings}", single, found, exact: false);
    }
}
