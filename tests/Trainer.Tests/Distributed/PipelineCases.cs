using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>Pipeline parallel against one rank, in every rank of one world.</summary>
/// <param name="world">The ranks.</param>
/// <param name="folder">The same new folder on all ranks.</param>
internal sealed class PipelineCases(World world, string folder)
{
    // Rows of different lengths, ten of them in steps of four: the last step of an epoch has two micro-batches.
    private const string Data = "\"data\": { \"train\": \"train.jsonl\", \"eval\": \"eval.jsonl\", \"maxLength\": 64 }",
        Train = "\"train\": { \"batchSize\": 4, \"microBatch\": 1, \"steps\": 20, \"learningRate\": 2e-4 }";

    private static string Adapter(string kind) =>
        $"\"adapter\": {{ \"kind\": \"{kind}\"{(kind == "none" ? "" : ", \"rank\": 4, \"dropout\": 0.1")} }}";

    private static string Recompute(bool on) =>
        $"\"memory\": {{ \"strategy\": \"manual\", \"recompute\": {(on ? "true" : "false")} }}";

    // The head's pair follows those of the layers.
    private const string Head =
        "\"adapter\": { \"kind\": \"lora\", \"rank\": 4, \"dropout\": 0.1, \"targets\": [\"q_proj\", \"lm_head\"] }";

    // Layer 3 alone: the first stage of two streams nothing.
    private const string Stream = "\"memory\": { \"strategy\": \"manual\", \"streamLayers\": 1 }";

    public void Check()
    {
        switch (world.Size)
        {
            case 2:
                Schedule();
                EqualsOneRank("lora", Adapter("lora"), [Recompute(false), Recompute(true)]);
                EqualsOneRank("qlora", Adapter("qlora"), [Recompute(true), Stream]);
                EqualsOneRank("full", Adapter("none"), [Recompute(false)]);
                EqualsOneRank("tied", Adapter("none"), [Recompute(true)], tied: true);
                MemoryRunsOut();
                OtherWorlds();
                break;
            case 3:
                Schedule();
                break;
            case 4:
                Schedule();
                EqualsOneRank("four stages", Head, [Recompute(true)], stages: 4);
                EqualsOneRank("two by two", Adapter("none"), [Recompute(false)], "zero1", tied: true);
                break;
        }
    }

    private RankTraining New(string name, string sections, int stages, bool tied = false, int? until = null) =>
        new(world, Path.Combine(folder, "pipeline " + name), sections)
        {
            Axes = $", \"pipeline\": {stages}",
            Shape = new(64, 128, 4, 4, 2, 1024) { Tied = tied },
            StopAfter = until,
        };

    private void EqualsOneRank(
        string name,
        string adapter,
        string[] memory,
        string strategy = "auto",
        int stages = 2,
        bool tied = false
    )
    {
        RankTraining.Found? single = null;
        foreach (var settings in memory)
        {
            using var training = New(name, $"{Data}, {adapter}, {Train}, {settings}", stages, tied);
            if (settings == memory[0])
                single = training.RunSingle();
            var ranks = training.Run(world, "ranks " + Array.IndexOf(memory, settings), strategy);
            DataParallelCases.MeasuredAsPlanned(ranks);
            if (single is not null)
                DataParallelCases.Same($"pipeline {name}", single, ranks, exact: false);
        }
    }

    private void MemoryRunsOut()
    {
        using var training = New(
            "exhausted",
            $"{Data}, {Adapter("lora")}, {Train}, \"memory\": {{ \"streamLayers\": 0, \"rehearse\": false }}",
            2
        );
        var single = training.RunSingle();
        for (var rank = 0; rank < world.Size; rank++)
        {
            training.Exhausted = (rank, 3);
            var ranks = training.Run(world, $"ranks {rank}");
            if (single is null)
                continue;
            var happened = Assert.Single(ranks.Events);
            Assert.Equal((2, "memory"), (happened.Step, happened.Kind));
            Assert.Contains("recomputed", happened.Text);
            DataParallelCases.Same($"pipeline exhausted {rank}", single, ranks, exact: false);
        }
    }

    /// <summary>Two stages begin, one rank goes on, then two data parallel ranks with a sharded optimizer, then two
    /// stages again: the loss is that of one rank.</summary>
    private void OtherWorlds()
    {
        var sections = $"{Data}, {Adapter("none")}, {Train}, \"checkpoint\": {{ \"every\": 5 }}";
        using var one = New("worlds", sections, 1, tied: true);
        var undisturbed = one.RunSingle();
        var losses = new List<double>();
        RankTraining.Found? last = null;
        foreach (
            var (ranks, stages, strategy, until) in new[]
            {
                (2, 2, "auto", 5),
                (1, 1, "auto", 8),
                (2, 1, "zero1", 12),
                (2, 2, "auto", 20),
            }
        )
        {
            using var training = New("worlds", sections, stages, tied: true, until < 20 ? until : null);
            last = ranks == 1 ? training.RunSingle("worlds") : training.Run(world, "worlds", strategy);
            losses.AddRange(last?.Losses ?? []);
        }
        if (undisturbed is not null)
            DataParallelCases.Same("pipeline resumed", undisturbed, last! with { Losses = losses }, exact: false);
    }

    /// <summary>Hidden states of 4 MiB, which no engine sends before they are received: every stage gets what its
    /// neighbours gave it, and holds as many micro-batches as the schedule says.</summary>
    private void Schedule()
    {
        using var scope = NewDisposeScope();
        using var mesh = DeviceMesh.Of(world.Group, 1, 1, world.Size);
        var shape = new Shape(64, 128, 4, 4, 2, 1024);
        var place = shape.Folder();
        var (pipeline, spec) = (mesh.Pipeline, ModelSpec.Read(place));
        var stage = PipelineStages.Cut(spec, world.Size, AdapterKind.Lora, 64)[pipeline.Stage];
        using var model = ModelLoader.Load(place, stage, new RunConfig(), float32, CPU);
        var batch = Rehearsal.Longest(1, 16_384, packed: false);
        var (held, most) = (0, 0);
        for (var count = 1; count <= 6; count++)
        {
            new PipelineSchedule(pipeline, model).Run([.. Enumerable.Repeat(batch, count)], Compute, () => { });
            Assert.Equal((0, stage.Stage.InFlight(count)), (held, most));
            most = 0;
        }

        Tensor? Compute(PipelineSchedule.Pass pass, Tensor? received)
        {
            using var inner = NewDisposeScope();
            held += pass.IsForward ? 1 : -1;
            most = Math.Max(most, held);
            var (from, ends) = pass.IsForward
                ? (pipeline.Stage - 1, pipeline.IsLast)
                : (pipeline.Stage + 1, pipeline.IsFirst);
            Assert.Equal(pass.IsForward ? pipeline.IsFirst : pipeline.IsLast, received is null);
            if (received is not null)
                Assert.True(received.eq(Value(pass, from)).all().item<bool>());
            received?.Dispose();
            return ends ? null : full([16_384, 64], Value(pass, pipeline.Stage), float32).MoveToOuterDisposeScope();
        }

        static float Value(PipelineSchedule.Pass pass, int stage) =>
            100 * pass.Number + 10 * stage + (pass.IsForward ? 1 : 2);
    }
}
