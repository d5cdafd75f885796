using Memopt.Core;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Tests.Plan;

/// <summary>How tensor parallel ranks divide weights.</summary>
public sealed class TensorSplitTests
{
    [Fact]
    public void Ranks_have_every_block_once_in_order()
    {
        var split = new TensorSplit(0, new SplitPart(6, 4), new SplitPart(3, 4));
        var ranges = Enumerable.Range(0, 3).Select(rank => split.Ranges(3, rank)).ToList();
        Assert.Equal([0, 8, 16], ranges.Select(of => of[0].Start));
        Assert.Equal([24, 28, 32], ranges.Select(of => of[1].Start));
        Assert.All(ranges, of => Assert.Equal([8, 4], of.Select(range => range.Length)));
        Assert.All(ranges.SelectMany(of => of), range => Assert.True(range.IsOwned));
        Assert.False(split.IsShared(3));
    }

    /// <summary>Rank t has the head ⌊t · K / T⌋, as the queries of the rank need it; the first of those that have it
    /// owns it.</summary>
    [Fact]
    public void Neighbours_share_a_head_where_there_are_fewer_heads_than_ranks()
    {
        var split = new TensorSplit(0, new SplitPart(2, 16));
        var ranges = Enumerable.Range(0, 4).Select(rank => Assert.Single(split.Ranges(4, rank))).ToList();
        Assert.Equal([0, 0, 16, 16], ranges.Select(range => range.Start));
        Assert.Equal([true, false, true, false], ranges.Select(range => range.IsOwned));
        Assert.True(split.IsShared(4));
    }

    [Theory, InlineData(50, 4), InlineData(151_936, 8), InlineData(7, 7)]
    public void Vocabulary_divides_unevenly_without_a_gap(long tokens, int ranks)
    {
        var split = new TensorSplit(0, new SplitPart(tokens, 1));
        long next = 0;
        for (var rank = 0; rank < ranks; rank++)
        {
            var range = Assert.Single(split.Ranges(ranks, rank));
            Assert.Equal(next, range.Start);
            Assert.InRange(range.Length, tokens / ranks, (tokens + ranks - 1) / ranks);
            next += range.Length;
        }
        Assert.Equal(tokens, next);
    }

    /// <summary>4 query heads, 2 key and value heads, 112 channels.</summary>
    [Theory, InlineData(3, "4 query heads"), InlineData(8, "112 channels"), InlineData(5, "distributed.tensor")]
    public void Number_that_does_not_divide_a_model_is_refused(int ranks, string words)
    {
        var spec = ModelSpec.Read(TestBackend.Golden("llama"));
        var fault = Assert.Throws<UserFault>(() => spec.Shard(ranks));
        Assert.Contains(words, fault.Message + fault.Found + fault.Next);
    }

    [Theory, InlineData("llama"), InlineData("qwen3"), InlineData("phi3")]
    public void Rank_has_its_part_of_the_layers_parameters(string family)
    {
        var spec = ModelSpec.Read(TestBackend.Golden(family));
        var half = spec.Shard(2);
        long Weights(ModelSpec of) => of.Linears.Sum(linear => linear.Weights);
        Assert.Equal(Weights(spec), 2 * Weights(half));
        // Every linear's part is as long as its split says.
        foreach (var (whole, part) in spec.Linears.Zip(half.Linears))
        {
            var length = whole.Split.Dim == 0 ? part.Out : part.In;
            Assert.Equal(whole.Split.Length(2, 0), length);
            Assert.Equal(whole.Split.Length(2, 1), length);
        }
    }
}
