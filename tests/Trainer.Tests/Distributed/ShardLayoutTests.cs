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

    /// <summary>A rank's shard of the numbers 1, 2, 3, …; padding is 0.</summary>
    private static long[] Shard(ShardLayout layout, int rank)
    {
        var shard = new List<long>();
        long first = 1;
        foreach (var (unit, count) in layout.Units.Zip(counts))
        {
            for (var i = rank * unit.Slice; i < (rank + 1) * unit.Slice; i++)
                shard.Add(i < count ? first + i : 0);
            first += count;
        }
        return [.. shard];
    }
}
