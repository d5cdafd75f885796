using Memopt.Trainer.Config;
using Memopt.Trainer.Data;

namespace Memopt.Trainer.Tests.Data;

public sealed class ContextSliceTests
{
    /// <summary>Every token, prediction and answer is one rank's, and all of it is where it was in the row.</summary>
    [Theory, InlineData(1, 2), InlineData(2, 2), InlineData(7, 2), InlineData(16, 2), InlineData(23, 3)]
    [InlineData(64, 4)]
    public void Ranks_have_the_tokens_and_predictions_of_a_micro_batch_between_them(int length, int ranks)
    {
        var whole = Batch(length);
        var (tokens, predictions) = (new List<(long, long)>(), new List<(long, long, int)>());
        foreach (var part in Enumerable.Range(0, ranks).Select(rank => ContextSlice.Of(whole, rank, ranks)))
        {
            var slice = part.Slice!;
            Assert.Equal((part.Length, 0), (slice.Length, slice.PaddedLength % (2 * ranks)));
            var places = slice.Places;
            for (var i = 0; i < part.Ids.Length; i++)
            {
                if (places[i % part.Length] < length)
                    tokens.Add((slice.Rows[i], part.Ids[i]));
                else
                    Assert.Equal(0, part.Ids[i]);
            }
            predictions.AddRange(
                part.LossPositions.Select((at, i) => (slice.Rows[at], part.Targets[i], part.AnswerIds[i]))
            );
        }
        Assert.Equal(whole.Ids.Select((id, i) => ((long)i, id)), tokens.Order());
        Assert.Equal(
            whole.LossPositions.Select((at, i) => (at, whole.Targets[i], whole.AnswerIds[i])),
            predictions.Order()
        );
    }

    /// <summary>By the rule of the fused kernels, the last query at the last key, a query attends to the tokens of its
    /// document up to itself.</summary>
    [Theory, InlineData(2, false), InlineData(3, false), InlineData(2, true), InlineData(4, true)]
    public void Sequences_give_each_query_the_keys_of_its_document_up_to_itself(int ranks, bool packed)
    {
        const int length = 37;
        var documents = packed ? new Documents([0, 5, 6, 30, length, length + 20, 2 * length], 24) : null;
        var rank0 = new ContextSlice(0, ranks, 2, length);
        foreach (var slice in Enumerable.Range(0, ranks).Select(rank => rank0 with { Rank = rank }))
        {
            var (ofQueries, ofKeys, keyRows) = slice.Sequences(documents);
            var places = slice.Places;
            Assert.Equal(2 * slice.Length, ofQueries[^1]);
            Assert.Equal(keyRows.Length, ofKeys[^1]);
            // Where a key is in the whole rows.
            var placeOf = rank0.KeyRows.Select((at, i) => (at, i)).ToDictionary(pair => pair.at, pair => pair.i);
            for (var s = 0; s + 1 < ofQueries.Length; s++)
            for (var i = ofQueries[s]; i < ofQueries[s + 1]; i++)
            {
                var own = i / slice.Length * slice.PaddedLength + (int)places[i % slice.Length];
                var seen = keyRows[ofKeys[s]..(ofKeys[s + 1] - (ofQueries[s + 1] - 1 - i))].Select(at => placeOf[at]);
                Assert.Equal(Enumerable.Range(0, own + 1).Where(key => Document(key) == Document(own)), seen);
            }

            // Padding is a document of its own where rows are packed.
            (int, int) Document(int at)
            {
                var (row, place) = (at / slice.PaddedLength, at % slice.PaddedLength);
                return documents is null ? (row, 0)
                    : place >= length ? (row, -1)
                    : (row, documents.CuSeqlens.Count(start => start <= row * length + place));
            }
        }
    }

    private static MicroBatch Batch(int length)
    {
        var rows = Enumerable
            .Range(0, 2)
            .Select(row =>
            {
                int[] ids = [.. Enumerable.Range(0, length - (length > 2 ? row : 0)).Select(t => 1 + t + 100 * row)];
                return new Row(ids, Array.ConvertAll(ids, id => id % 5 < 2 ? Row.NoLoss : id), 0);
            })
            .ToList();
        return Batches.InOrder(rows, 2).Single();
    }
}
