using Memopt.Tracking;
using Memopt.Trainer.Distributed;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>Data parallel against one rank, in every rank of one world: many cases in one start of the
/// processes.</summary>
/// <param name="world">The ranks.</param>
/// <param name="folder">The same new folder on all ranks.</param>
internal sealed class DataParallelCases(World world, string folder)
{
    private const string Data = "\"data\": { \"train\": \"train.jsonl\", \"eval\": \"eval.jsonl\", \"maxLength\": 64 }",
        Train = "\"train\": { \"batchSize\": 4, \"microBatch\": 1, \"steps\": 20, \"learningRate\": 2e-4 }";

    // Two ranks, a micro-batch each: both forms add the same two gradients. (Those of full fine-tuning are added
    // within a matrix product, in another order.)
    private const string TwoParts =
        "\"train\": { \"batchSize\": 4, \"microBatch\": 2, \"steps\": 20, " + "\"learningRate\": 2e-4 }";

    private static string Adapter(string kind) =>
        $"\"adapter\": {{ \"kind\": \"{kind}\"{(kind == "none" ? "" : ", \"rank\": 4, \"dropout\": 0.1")} }}";

    public void Check()
    {
        // Three ranks differ from two in the blocks of micro-batches, which the kind of training does not change.
        string[] kinds = world.Size == 2 ? ["lora", "qlora", "none"] : ["lora"];
        foreach (var kind in kinds)
            EqualsOneRank($"{kind}", $"{Data}, {Adapter(kind)}, {(world.Size == 2 ? TwoParts : Train)}");
        EqualsOneRank(
            "packed",
            $"{Data.Replace("64 }", "128, \"packing\": true }")}, {Adapter("lora")}, {Train.Replace("4,", "5,")}",
            rows: 40
        );
        if (world.Size == 2)
            MemoryRunsOut();
        StopAndResume();
    }

    private void EqualsOneRank(string name, string sections, int rows = 10)
    {
        using var training = new RankTraining(world, Path.Combine(folder, name), sections) { Rows = rows };
        var ranks = training.Run(world, "ranks");
        if (training.RunSingle() is not { } single)
            return;
        Same(name, single, ranks, exact: world.Size == 2 && name is ("lora" or "qlora"));
    }

    private void MemoryRunsOut()
    {
        var sections =
            $"{Data}, {Adapter("lora")}, {Train}, \"memory\": {{ \"streamLayers\": 0, \"rehearse\": false }}";
        using var training = new RankTraining(world, Path.Combine(folder, "exhausted"), sections)
        {
            Exhausted = (world.Size - 1, 3),
        };
        var ranks = training.Run(world, "ranks");
        training.Exhausted = null;
        if (training.RunSingle() is not { } single)
            return;
        var happened = Assert.Single(ranks.Events);
        Assert.Equal((2, "memory"), (happened.Step, happened.Kind));
        Assert.Contains("recomputed", happened.Text);
        Same("exhausted", single, ranks, exact: false);
    }

    /// <summary>A stop that one rank is asked for ends all after the same step; another number of ranks
    /// resumes.</summary>
    private void StopAndResume()
    {
        var sections = $"{Data}, {Adapter("lora")}, {Train}, \"checkpoint\": {{ \"every\": 5 }}";
        string Place(string name) => Path.Combine(folder, name);
        using var stopping = new RankTraining(world, Place("stop"), sections) { StopAfter = 7 };
        var stopped = stopping.Run(world, "ranks");
        Assert.Equal((RunStatus.Stopped, 7), (stopped.Result.Status, stopped.Result.Steps));
        using var training = new RankTraining(world, Place("stop"), sections);
        var undisturbed = training.RunSingle();
        var resumed = training.RunSingle("ranks");
        if (undisturbed is null || resumed is null)
            return;
        var all = resumed with { Losses = [.. stopped.Losses, .. resumed.Losses] };
        Assert.Equal("resume", Assert.Single(all.Events).Kind);
        Same("resumed", undisturbed, all, exact: false);
    }

    private static void Same(string name, RankTraining.Found one, RankTraining.Found ranks, bool exact)
    {
        Assert.Equal((RunStatus.Finished, RunStatus.Finished), (one.Result.Status, ranks.Result.Status));
        Assert.Equal(20, ranks.Losses.Count);
        var loss = one.Losses.Zip(ranks.Losses, (a, b) => Math.Abs(a - b) / a).Max();
        var weights = Weights(one).Zip(Weights(ranks), (a, b) => Math.Abs(a - b)).Max();
        Console.WriteLine(
            $"{name}: loss differs by {loss:g2} at most, weights by {weights:g2}, evaluation "
                + $"{one.Result.Score!.Loss} and {ranks.Result.Score!.Loss}"
        );
        Assert.Equal(one.Weights!.Length, ranks.Weights!.Length);
        if (exact)
        {
            Assert.Equal(one.Losses, ranks.Losses);
            Assert.Equal(one.Weights, ranks.Weights);
            Assert.Equal(one.Result.Score, ranks.Result.Score);
        }
        Assert.True(loss < 1e-5, $"{name}: loss differs by {loss}");
        Assert.True(weights < 1e-5, $"{name}: weights differ by {weights}");
        Assert.Equal(one.Result.Score.Accuracy, ranks.Result.Score.Accuracy);
        Assert.Equal(one.Result.Score.Loss, ranks.Result.Score.Loss, 1e-5);
    }

    /// <summary>The fp32 numbers of a safetensors file.</summary>
    private static float[] Weights(RankTraining.Found found)
    {
        var bytes = found.Weights!;
        var start = 8 + (int)BitConverter.ToInt64(bytes);
        return [.. System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(bytes.AsSpan(start))];
    }
}
