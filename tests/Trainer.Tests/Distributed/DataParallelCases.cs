using Memopt.Tracking;
using Memopt.Trainer.Distributed;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>Data parallel against one rank, in every rank of one world: many cases in one start of the
/// processes.</summary>
/// <param name="world">The ranks.</param>
/// <param name="folder">The same new folder on all ranks.</param>
internal sealed class DataParallelCases(World world, string folder)
{
    private const string Data = "\"data\": { \"train\": \"train.jsonl\", \"eval\": \"eval.jsonl\", \"maxLength\": 64 }",
        Train = "\"train\": { \"batchSize\": 4, \"microBatch\": 1, \"steps\": 20, \"learningRate\": 2e-4 }";

    // Two ranks, a micro-batch each: both forms add the same two gradients.
    private const string TwoParts =
        "\"train\": { \"batchSize\": 4, \"microBatch\": 2, \"steps\": 20, " + "\"learningRate\": 2e-4 }";

    private static readonly bool full = Environment.GetEnvironmentVariable("MEMOPT_TESTS_FULL") == "1";

    private static string Adapter(string kind) =>
        $"\"adapter\": {{ \"kind\": \"{kind}\"{(kind == "none" ? "" : ", \"rank\": 4, \"dropout\": 0.1")} }}";

    public void Check()
    {
        switch (world.Size)
        {
            case 2:
                foreach (var kind in new[] { "lora", "qlora", "none" })
                    EqualsOneRank(kind, $"{Data}, {Adapter(kind)}, {TwoParts}");
                foreach (var strategy in full ? new[] { "ddp", "zero2", "zero3" } : ["zero2", "zero3"])
                    MemoryRunsOut(strategy);
                break;
            // A rank has no micro-batch in the last step of an epoch, and packed rows.
            case 3:
                EqualsOneRank("ragged", $"{Data}, {Adapter("lora")}, {Train}");
                var packed = Data.Replace("64 }", "128, \"packing\": true }");
                EqualsOneRank("packed", $"{packed}, {Adapter("lora")}, {Train.Replace("4,", "5,")}", rows: 40);
                break;
            default:
                OtherWorlds();
                break;
        }
    }

    private void EqualsOneRank(string name, string sections, int rows = 10)
    {
        using var training = new RankTraining(world, Path.Combine(folder, name), sections) { Rows = rows };
        var single = training.RunSingle();
        string[] strategies = ["ddp", "zero1", "zero2", .. name == "none" ? Array.Empty<string>() : ["zero3"]];
        foreach (var strategy in name == "packed" && !full ? strategies.Skip(3) : strategies)
        {
            var ranks = training.Run(world, strategy, strategy);
            if (name == "none" || strategy == "zero3")
                MeasuredAsPlanned(ranks);
            if (single is null)
                continue;
            Same($"{name} {strategy}", single, ranks, exact: world.Size == 2);
            Assert.Equal(
                strategy == "ddp" ? ["state.safetensors"] : Shards(),
                Directory
                    .EnumerateFiles(
                        Path.Combine(folder, name, strategy, "out", "checkpoints", "step-00000020"),
                        "*.safetensors"
                    )
                    .Select(file => Path.GetFileName(file))
                    .Order(StringComparer.Ordinal)
            );
        }
    }

    private string[] Shards() =>
        [.. Enumerable.Range(1, world.Size).Select(rank => $"state-{rank:D5}-of-{world.Size:D5}.safetensors")];

    /// <summary>What a rank holds between steps is what the plan said, but for the padding of the shards.</summary>
    internal static void MeasuredAsPlanned(RankTraining.Found found)
    {
        const int padding = 16_384; // tensors in a slot begin at 256 bytes
        string[] rows = ["weights", "streaming slots", "trained weights", "adapters", "gradients", "optimizer"];
        var seen = found.Ledger.Where(row => rows.Contains(row.Name)).ToList();
        Assert.True(seen.Count >= 3);
        foreach (var row in seen)
            Assert.True(
                row.Measured >= row.Bytes && row.Measured < row.Bytes * 1.05 + padding,
                $"{row.Name}: planned {row.Bytes}, measured {row.Measured}"
            );
    }

    private void MemoryRunsOut(string strategy)
    {
        var sections =
            $"{Data}, {Adapter("lora")}, {Train}, \"memory\": {{ \"streamLayers\": 0, \"rehearse\": false }}";
        using var training = new RankTraining(world, Path.Combine(folder, "exhausted " + strategy), sections)
        {
            Exhausted = (world.Size - 1, 3),
        };
        var ranks = training.Run(world, "ranks", strategy);
        training.Exhausted = null;
        if (training.RunSingle() is not { } single)
            return;
        var happened = Assert.Single(ranks.Events);
        Assert.Equal((2, "memory"), (happened.Step, happened.Kind));
        Assert.Contains("recomputed", happened.Text);
        Same("exhausted " + strategy, single, ranks, exact: false);
    }

    /// <summary>Four ranks begin, two go on, then three, then one, each with another strategy: the loss is that of one
    /// rank. With the same ranks a run that was stopped gives the bytes of one that was not.</summary>
    private void OtherWorlds()
    {
        var place = Path.Combine(folder, "worlds");
        using var one = new RankTraining(world, place, Resumed("none"));
        var undisturbed = one.RunSingle();
        var whole = one.Run(world, "four", "zero2");
        var losses = new List<double>();
        RankTraining.Found? last = null;
        foreach (
            var (ranks, strategy, until) in new[] { (4, "zero2", 5), (2, "zero1", 9), (3, "zero2", 14), (1, "ddp", 20) }
        )
            last = Part(ranks, strategy, until, "worlds") ?? last;
        Part(4, "zero2", 7, "stopped");
        var stopped = Part(4, "zero2", 20, "stopped");
        if (undisturbed is null)
            return;
        Assert.Equal(["resume", "resume", "resume"], last!.Events.Select(happened => happened.Kind));
        Same("4, 2, 3, 1 ranks", undisturbed, last! with { Losses = losses }, exact: false, losses: 1e-6);
        Assert.Equal(whole.Weights, stopped!.Weights);

        RankTraining.Found? Part(int ranks, string strategy, int until, string output)
        {
            using var group = world.Group.Split(world.Rank < ranks ? 0 : 1, world.Rank);
            RankTraining.Found? found = null;
            if (world.Rank < ranks)
            {
                using var training = new RankTraining(world, place, Resumed("none"))
                {
                    StopAfter = until < 20 ? until : null,
                };
                found = training.Run(new World(group, new(world.Rank, ranks, 0, 1, "test"), CPU), output, strategy);
                Assert.Equal(until, found.Result.Steps);
                if (output == "worlds")
                    losses.AddRange(found.Losses);
            }
            world.Group.Barrier(Timeout.InfiniteTimeSpan);
            return found;
        }
    }

    private static string Resumed(string kind) =>
        $"{Data}, {Adapter(kind)}, {Train}, \"checkpoint\": {{ \"every\": 5 }}";

    internal static void Same(
        string name,
        RankTraining.Found one,
        RankTraining.Found ranks,
        bool exact,
        double losses = 1e-5
    )
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
        Assert.True(loss < losses, $"{name}: loss differs by {loss}");
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
