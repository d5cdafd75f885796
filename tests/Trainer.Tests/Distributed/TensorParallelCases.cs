using Memopt.Trainer.Distributed;
using Memopt.Trainer.Tests.Models;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>Tensor parallel against one rank and against transformers, in every rank of one world.</summary>
/// <param name="world">The ranks.</param>
/// <param name="folder">The same new folder on all ranks.</param>
internal sealed class TensorParallelCases(World world, string folder)
{
    private const string Data = "\"data\": { \"train\": \"train.jsonl\", \"eval\": \"eval.jsonl\", \"maxLength\": 64 }",
        Train = "\"train\": { \"batchSize\": 4, \"microBatch\": 2, \"steps\": 20, \"learningRate\": 2e-4 }";

    // Halves and quarters of the linears' inputs are whole blocks of 64 weights.
    private static readonly Shape wide = new(256, 256, 2, 4, 2, 1024);

    public void Check()
    {
        // Two key and value heads on four ranks: two ranks have the same.
        foreach (var family in GoldenTests.Families)
        {
            GoldenTests.Logits_loss_and_gradients_equal_those_of_transformers_on(CPU, family, world.Group);
            GoldenTests.Adapter_logits_and_ten_steps_equal_those_of_PEFT_on(CPU, family, world.Group);
        }
        Console.WriteLine($"{world.Size} tensor parallel ranks: the goldens of transformers and PEFT");
        EqualsOneRank("tensor lora", "lora", world.Size);
        EqualsOneRank("tensor qlora", "qlora", world.Size, wide);
        EqualsOneRank("tensor none", "none", world.Size);
        MemoryRunsOut();
        GoesOn("lora", ", \"rank\": 4, \"dropout\": 0.1");
        if (DataParallelCases.IsFull)
            GoesOn("none", "");
        if (world.Size <= 2)
            return;
        EqualsOneRank("tensor and data", "lora", 2, strategies: ["ddp", "zero1"]);
        EqualsOneRank("tensor and context", "lora", 2, axes: ", \"context\": 2");
        EqualsOneRank("tensor and data none", "none", 2, strategies: ["zero1"]);
    }

    private void MemoryRunsOut()
    {
        var sections =
            $"{Data}, {Train.Replace("\"microBatch\": 2", "\"microBatch\": 1")}, "
            + "\"adapter\": { \"kind\": \"lora\", \"rank\": 4 }, \"memory\": { \"rehearse\": false }";
        using var training = new RankTraining(world, Path.Combine(folder, "tensor exhausted"), sections)
        {
            Axes = $", \"tensor\": {world.Size}",
            Exhausted = (world.Size - 1, 3),
        };
        var ranks = training.Run(world, "ranks", "ddp");
        training.Exhausted = null;
        if (training.RunSingle() is not { } single)
            return;
        Assert.Equal((2, "memory"), (Assert.Single(ranks.Events).Step, ranks.Events[0].Kind));
        DataParallelCases.Same("tensor exhausted", single, ranks, exact: false);
    }

    /// <summary>All ranks begin, one goes on, all finish: as one rank, and stopped and resumed by the same ranks to the
    /// byte.</summary>
    private void GoesOn(string kind, string adapter)
    {
        var place = Path.Combine(folder, "tensor resumed " + kind);
        var sections =
            $"{Data}, {Train}, \"adapter\": {{ \"kind\": \"{kind}\"{adapter} }}, \"checkpoint\": {{ \"every\": 5 }}";
        RankTraining Training(int? until) =>
            new(world, place, sections) { Axes = $", \"tensor\": {world.Size}", StopAfter = until };
        using var whole = Training(null);
        var (undisturbed, all) = (whole.RunSingle(), whole.Run(world, "all"));
        var losses = new List<double>();
        RankTraining.Found? last = null;
        foreach (var (alone, until) in new (bool, int?)[] { (false, 7), (true, 12), (false, null) })
        {
            using var part = Training(until);
            if ((alone ? part.RunSingle("resumed") : part.Run(world, "resumed")) is { } found)
                losses.AddRange((last = found).Losses);
        }
        using (var part = Training(7))
            part.Run(world, "stopped");
        var stopped = whole.Run(world, "stopped");
        if (undisturbed is null)
            return;
        DataParallelCases.Same(
            $"tensor resumed {kind}",
            undisturbed,
            last! with
            {
                Losses = losses,
            },
            exact: false,
            1e-6
        );
        Assert.Equal(all.Weights, stopped.Weights);
    }

    private void EqualsOneRank(
        string name,
        string kind,
        int tensor,
        Shape? shape = null,
        string[]? strategies = null,
        string axes = ""
    )
    {
        var adapter = kind == "none" ? "" : ", \"rank\": 4, \"dropout\": 0.1";
        var sections = $"{Data}, {Train}, \"adapter\": {{ \"kind\": \"{kind}\"{adapter} }}";
        using var training = new RankTraining(world, Path.Combine(folder, name), sections)
        {
            Axes = $", \"tensor\": {tensor}{axes}",
            Shape = shape ?? new(64, 128, 4, 4, 2, 1024),
        };
        var single = training.RunSingle();
        foreach (var strategy in strategies ?? ["ddp"])
        {
            var ranks = training.Run(world, strategy, strategy);
            DataParallelCases.MeasuredAsPlanned(ranks);
            if (single is not null)
                DataParallelCases.Same($"{name} {strategy}", single, ranks, exact: false);
        }
    }
}
