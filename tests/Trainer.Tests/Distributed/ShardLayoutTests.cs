using Memopt.Trainer.Optim;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>How weights are divided among ranks, against a list of the weights themselves.</summary>
public sealed class ShardLayoutTests
{
    private static readonly long[] counts = [1, 700, 64, 128, 4096, 63];

    [Fact]
    public void One_rank_has_all_weights_without_padding()
    {
        var layout = new ShardLayout(counts, 1);
        Assert.Equal((counts.Sum(), counts.Sum(), counts.Sum()), (layout.Count, layout.WholeSize, layout.ShardSize));
        Assert.Equal(new ShardPiece(0, 0, counts.Sum()), Assert.Single(layout.Pieces(0)));
    }

    [Theory, InlineData(2), InlineData(3), InlineData(4), InlineData(7), InlineData(1024)]
    public void Pieces_of_all_ranks_are_the_whole_once(int ranks)
    {
        var layout = new ShardLayout(counts, ranks);
        Assert.Equal(counts.Sum(), layout.Count);
        var seen = new int[layout.WholeSize];
        for (var rank = 0; rank < ranks; rank++)
        {
            var next = 0L;
            foreach (var (shard, whole, length) in layout.Pieces(rank))
            {
                Assert.Equal((next, 0), (shard, whole % 64)); // a slice begins at 256 bytes
                next += length;
                for (var i = whole; i < whole + length; i++)
                    seen[i]++;
            }
            Assert.Equal(layout.ShardSize, next);
        }
        Assert.All(seen, times => Assert.Equal(1, times));
    }

    [Theory, InlineData(1, 1), InlineData(4, 2), InlineData(2, 3), InlineData(3, 1), InlineData(1, 5)]
    public void Shards_of_one_world_hold_what_those_of_another_held(int before, int after)
    {
        var (from, to) = (new ShardLayout(counts, before), new ShardLayout(counts, after));
        var old = Enumerable.Range(0, before).Select(rank => Shard(from, rank)).ToList();
        for (var rank = 0; rank < after; rank++)
        {
            var made = new long[to.ShardSize];
            for (var other = 0; other < before; other++)
                foreach (var piece in to.Shared(rank, from.For(before), other))
                    Array.Copy(old[other], piece.From, made, piece.To, piece.Length);
            Assert.Equal(Shard(to, rank), made);
        }
    }

    /// <summary>The units of two stages among those of one: the first three layers and the embeddings (4,096), the
    /// fourth layer and the norm (63). The second stage has a copy of the embeddings.</summary>
    private static readonly UnitRange[][] stages =
    [
        [new(0, 1), new(1, 700), new(701, 64), new(893, 4096)],
        [new(765, 128), new(4989, 63), new(893, 4096, IsCopy: true)],
    ];

    [Theory, InlineData(1, 1), InlineData(2, 1), InlineData(1, 3), InlineData(3, 2)]
    public void Stages_hold_what_one_held_and_the_other_way_around(int before, int after)
    {
        ShardLayout[] whole = [new(counts, before)];
        ShardLayout[] parts = [.. stages.Select(units => new ShardLayout(units, after))];
        foreach (var (from, to) in new[] { (whole, parts), (parts, whole) })
        foreach (var layout in to)
        {
            for (var rank = 0; rank < layout.Ranks; rank++)
            {
                var (made, found) = (new long[layout.ShardSize], 0L);
                foreach (var written in from)
                    for (var other = 0; other < written.Ranks; other++)
                        foreach (var piece in layout.Shared(rank, written, other))
                        {
                            Array.Copy(Shard(written, other), piece.From, made, piece.To, piece.Length);
                            found += piece.Length;
                        }
                Assert.Equal(Shard(layout, rank), made);
                Assert.Equal(layout.Held(rank), found);
            }
        }
    }

    /// <summary>A rank's shard of the numbers 1, 2, 3, …; padding is 0.</summary>
    private static long[] Shard(ShardLayout layout, int rank)
    {
        var shard = new List<long>();
        foreach (var unit in layout.Units)
        {
            for (var i = rank * unit.Slice; i < (rank + 1) * unit.Slice; i++)
                shard.Add(i < unit.Count ? unit.Start + i + 1 : 0);
        }
        return [.. shard];
    }
}
