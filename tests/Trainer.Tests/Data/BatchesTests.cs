using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Data;

[Collection(Alone.Name)]
public sealed class BatchesTests
{
    private static readonly Row[] rows = [.. Enumerable.Range(0, 23).Select(i =>
    {
        var ids = Enumerable.Range(0, 3 + (i * 7 % 11)).Select(t => 3 + ((i * 31 + t * 17) % 150)).ToArray();
        return new Row(ids, [-100, .. ids[1..]], i + 1);
    })];

    [Fact]
    public void Every_epoch_has_every_row_once_in_a_new_order()
    {
        var batches = new Batches(rows, new DataConfig(), new TrainConfig { BatchSize = 4, Epochs = 2 }, 2);
        Assert.Equal((46 + 3) / 4, batches.TotalSteps);
        var seen = Enumerable.Range(0, batches.TotalSteps).SelectMany(step => batches.Step(step)).Sum(batch => batch.Count);
        Assert.Equal(46, seen);
        // Any step can be asked for alone, in any order: that is what makes a resume exact.
        var late = new Batches(rows, new DataConfig(), new TrainConfig { BatchSize = 4, Epochs = 2 }, 2).Step(9);
        Assert.Equal(batches.Step(9).SelectMany(b => b.Ids), late.SelectMany(b => b.Ids));
        Assert.NotEqual(batches.Step(0)[0].Ids, new Batches(rows, new DataConfig { Seed = 1 }, new TrainConfig { BatchSize = 4 }, 2).Step(0)[0].Ids);
    }

    [Fact]
    public void Packed_rows_see_only_themselves()
    {
        using var scope = NewDisposeScope();
        using var model = Models.GoldenTests.Load("llama");
        var config = new DataConfig { Packing = true, MaxLength = 32, Shuffle = false };
        var packed = new Batches(rows, config, new TrainConfig { BatchSize = 100, Epochs = 1 }, 3);
        var parts = packed.Step(0);
        Assert.True(parts.Sum(part => part.Count) < rows.Length);
        Assert.Equal(rows.Sum(row => (long)row.Ids.Length), parts.Sum(part => part.Tokens));
        var apart = Batches.InOrder(rows, 4).Sum(batch => Loss(model, batch));
        Assert.Equal(apart, parts.Sum(batch => Loss(model, batch)), 1e-3 * apart);
    }

    private static double Loss(Decoder model, MicroBatch batch)
    {
        Tensor Grid(long[] values) => tensor(values).reshape(batch.Count, batch.Length);
        using var pass = model.NewPass(batch.Length, batch.Positions is { } p ? Grid(p) : null, batch.Documents);
        return Head.Loss(model.lm_head, model.Hidden(Grid(batch.Ids), pass).Value, tensor(batch.Predicting), tensor(batch.Targets), 1, pass).Sum.item<double>();
    }
}
