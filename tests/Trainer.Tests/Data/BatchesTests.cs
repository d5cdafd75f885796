using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Data;

[Collection(ExclusiveCollection.Name)]
public sealed class BatchesTests
{
    private static readonly Row[] rows =
    [
        .. Enumerable
            .Range(0, 23)
            .Select(i =>
            {
                var ids = Enumerable.Range(0, 3 + (i * 7 % 11)).Select(t => 3 + ((i * 31 + t * 17) % 150)).ToArray();
                return new Row(ids, [-100, .. ids[1..]], i + 1);
            }),
    ];

    [Fact]
    public void Epoch_has_every_row_once_in_a_new_order()
    {
        var batches = new Batches(rows, new DataConfig(), new TrainConfig { BatchSize = 4, Epochs = 2 }, 2);
        Assert.Equal((46 + 3) / 4, batches.TotalSteps);
        var seen = Enumerable
            .Range(0, batches.TotalSteps)
            .SelectMany(step => batches.Step(step))
            .Sum(batch => batch.Count);
        Assert.Equal(46, seen);
        // Any step can be asked for alone, in any order: that is what makes a resume exact.
        var late = new Batches(rows, new DataConfig(), new TrainConfig { BatchSize = 4, Epochs = 2 }, 2).Step(9);
        Assert.Equal(batches.Step(9).SelectMany(b => b.Ids), late.SelectMany(b => b.Ids));
        Assert.NotEqual(
            batches.Step(0)[0].Ids,
            new Batches(rows, new DataConfig { Seed = 1 }, new TrainConfig { BatchSize = 4 }, 2).Step(0)[0].Ids
        );
    }

    // max_steps of transformers' Trainer: ceil(epochs * ceil(rows / batch)), as its last, short batch ends an epoch
    // (dataloader_drop_last is false).
    [Theory]
    [
        InlineData(5, 16, 3, 3),
        InlineData(20, 16, 3, 6),
        InlineData(16, 16, 3, 3),
        InlineData(2422, 16, 3, 456),
        InlineData(5, 2, 2.5, 8),
        InlineData(10, 1, 1.1, 11),
        InlineData(5, 16, 0.1, 1)
    ]
    public void Epochs_have_as_many_steps_as_in_transformers(int count, int batch, double epochs, int expected) =>
        Assert.Equal(
            expected,
            new Batches(
                Numbered(count),
                new DataConfig(),
                new TrainConfig { BatchSize = batch, Epochs = epochs },
                batch
            ).TotalSteps
        );

    [Theory, InlineData(false), InlineData(true)]
    public void Epoch_ends_with_a_short_step_whether_steps_or_epochs_are_set(bool packing)
    {
        // Packed, two of these rows fill a sequence: 5, or 10 packed, are steps of 2, 2 and 1 sequences.
        var (some, data) = (Numbered(packing ? 10 : 5), new DataConfig { Packing = packing, MaxLength = 4 });
        var (byEpochs, bySteps) = (
            new Batches(some, data, new() { BatchSize = 2, Epochs = 3 }, 2),
            new Batches(some, data, new() { BatchSize = 2, Steps = 7 }, 2)
        );
        Assert.Equal((9, 7), (byEpochs.TotalSteps, bySteps.TotalSteps));
        for (var step = 0; step < 9; step++)
        {
            Assert.Equal(step % 3 == 2 ? 1 : 2, byEpochs.Step(step).Sum(batch => batch.Count));
            // From the seed and the number alone: a run that is resumed, and one of so many steps, has the same rows.
            Assert.Equal(
                byEpochs.Step(step).SelectMany(batch => batch.Ids),
                new Batches(some, data, new() { BatchSize = 2, Steps = 7 }, 2).Step(step).SelectMany(batch => batch.Ids)
            );
        }
        foreach (var epoch in new[] { 0, 1, 2 })
            Assert.Equal(
                Enumerable.Range(0, some.Length),
                Enumerable
                    .Range(3 * epoch, 3)
                    .SelectMany(step => byEpochs.Step(step))
                    .SelectMany(batch => batch.Ids.Where((_, at) => at % 2 == 0))
                    .Select(id => (int)id)
                    .Order()
            );
    }

    private static Row[] Numbered(int count) => [.. Enumerable.Range(0, count).Select(i => new Row([i, i], [i, i], i))];

    [Fact]
    public void Packed_rows_attend_only_to_themselves()
    {
        using var scope = NewDisposeScope();
        using var model = Models.GoldenTests.Load("llama");
        var config = new DataConfig
        {
            Packing = true,
            MaxLength = 32,
            Shuffle = false,
        };
        var packed = new Batches(rows, config, new TrainConfig { BatchSize = 100, Epochs = 1 }, 3);
        var parts = packed.Step(0);
        Assert.True(parts.Sum(part => part.Count) < rows.Length);
        Assert.Equal(rows.Sum(row => (long)row.Ids.Length), parts.Sum(part => part.Tokens));
        var apart = Batches.InOrder(rows, 4).Sum(batch => Loss(model, batch));
        Assert.Equal(apart, parts.Sum(batch => Loss(model, batch)), 1e-3 * apart);
    }

    [Fact]
    public void Packing_is_best_fit_in_the_order_of_the_epoch()
    {
        var random = new Random(3);
        for (var round = 0; round < 60; round++)
        {
            var longest = random.Next(2, 200);
            var some = Enumerable
                .Range(0, random.Next(1, 80))
                .Select(i => new Row(
                    [.. Enumerable.Repeat(i, random.Next(2, longest + (round % 4 == 0 ? 3 : 1)))],
                    [.. Enumerable.Repeat(i, 1)],
                    i
                ))
                .Select(row => row with { Labels = row.Ids })
                .ToArray();
            var config = new DataConfig
            {
                Packing = true,
                MaxLength = longest,
                Seed = round,
            };
            // The order of the same epoch without packing; the first position of each row tells which it is.
            var order = Sequences(new(some, config with { Packing = false }, new() { BatchSize = 1, Epochs = 1 }, 1))
                .Select(sequence => sequence[0])
                .ToList();
            var expected = new List<(List<int> Rows, int Room)>();
            foreach (var row in order.OrderByDescending(row => some[row].Ids.Length)) // a stable sort
            {
                var length = some[row].Ids.Length;
                var best = Enumerable
                    .Range(0, expected.Count)
                    .Where(bin => expected[bin].Room >= length)
                    .OrderBy(bin => expected[bin].Room)
                    .ThenBy(bin => bin)
                    .DefaultIfEmpty(-1)
                    .First();
                if (best < 0)
                    expected.Add(([row], longest - length));
                else
                    expected[best] = ([.. expected[best].Rows, row], expected[best].Room - length);
            }
            var inOrder = expected
                .Select(bin => bin.Rows.OrderBy(order.IndexOf).ToArray())
                .OrderBy(bin => order.IndexOf(bin[0]));
            Assert.Equal(inOrder, Sequences(new(some, config, new() { BatchSize = 1, Epochs = 1 }, 1)));
        }
    }

    /// <summary>The rows of each sequence of an epoch; the rows' tokens are their numbers.</summary>
    private static List<int[]> Sequences(Batches batches) =>
        [
            .. Enumerable
                .Range(0, batches.TotalSteps)
                .Select(step =>
                {
                    var batch = Assert.Single(batches.Step(step));
                    var starts = batch.Documents?.CuSeqlens[..^1] ?? [0];
                    return starts
                        .Where((start, at) => start < batch.Tokens)
                        .Select(start => (int)batch.Ids[start])
                        .ToArray();
                }),
        ];

    [Fact]
    public void Row_order_equals_the_recorded_one()
    {
        // SplitMix64 and Fisher-Yates, worked out in Python: a run that was begun with it goes on with the same rows.
        var some = Enumerable.Range(0, 12).Select(i => new Row([i, i], [i, i], i)).ToArray();
        Assert.Equal(
            [11, 4, 2, 0, 3, 5, 8, 6, 10, 1, 9, 7, 10, 3, 6, 8, 4, 9, 2, 1, 7, 0, 5, 11],
            Sequences(new(some, new DataConfig { Seed = 42 }, new() { BatchSize = 1, Epochs = 2 }, 1))
                .Select(sequence => sequence[0])
        );
    }

    private static double Loss(Decoder model, MicroBatch batch)
    {
        Tensor Grid(long[] values) => tensor(values).reshape(batch.Count, batch.Length);
        using var context = model.NewContext(batch.Length, batch.Positions is { } p ? Grid(p) : null, batch.Documents);
        return ChunkedCrossEntropy
            .Loss(
                model.lm_head,
                model.Forward(Grid(batch.Ids), context).Output,
                tensor(batch.LossPositions),
                tensor(batch.Targets),
                1,
                context
            )
            .Sum.item<double>();
    }
}
