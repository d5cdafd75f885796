using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Data;

/// <summary>The tokens of each row that one context parallel rank computes. A row is padded and cut into 2c equal
/// pieces for c ranks. Rank r has the pieces r and 2c − 1 − r: causal attention then costs every rank as much (Llama 3,
/// Grattafiori et al. 2024, arXiv 2407.21783, section 3.3.2).</summary>
/// <param name="Rank">Number of the rank among those that share the rows.</param>
/// <param name="Ranks">How many share them, c.</param>
/// <param name="Count">Rows of the micro-batch, B.</param>
/// <param name="RowLength">Tokens of a whole row before it is padded, T.</param>
internal sealed record ContextSlice(int Rank, int Ranks, int Count, int RowLength)
{
    /// <summary>Tokens of a piece.</summary>
    public int Piece => Length / 2;

    /// <summary>Tokens of a row that the rank has.</summary>
    public int Length => (int)Footprints.ContextTokens(RowLength, Ranks);

    /// <summary>Tokens of a whole row, padded to equal pieces.</summary>
    public int PaddedLength => Length * Ranks;

    /// <summary>(Length) the place of each of the rank's tokens in the whole row. Those from
    /// <see cref="RowLength"/> on are padding.</summary>
    public long[] Places =>
        [.. Range(Rank * Piece), .. Range((2 * Ranks - 1 - Rank) * Piece)];

    /// <summary>(B · Length) the number of each of the rank's tokens among the B · T of the whole micro-batch. That of
    /// padding may be another's.</summary>
    public long[] Rows
    {
        get
        {
            var places = Places;
            return
            [
                .. Enumerable.Range(0, Count).SelectMany(row => places.Select(place => row * (long)RowLength + place)),
            ];
        }
    }

    /// <summary>What the rank computes of a micro-batch: its tokens, and the predictions that are made from them.
    /// Documents stay those of the whole rows.</summary>
    public static MicroBatch Of(MicroBatch whole, int rank, int ranks)
    {
        var slice = new ContextSlice(rank, ranks, whole.Count, whole.Length);
        var places = slice.Places;
        var local = new int[whole.Length];
        Array.Fill(local, -1);
        for (var i = 0; i < places.Length; i++)
        {
            if (places[i] < whole.Length)
                local[places[i]] = i;
        }
        var own = Enumerable
            .Range(0, whole.LossPositions.Length)
            .Where(i => local[whole.LossPositions[i] % whole.Length] >= 0)
            .ToArray();
        return whole with
        {
            Length = slice.Length,
            Ids = slice.Take(whole.Ids),
            LossPositions = Array.ConvertAll(own, i => Local(whole.LossPositions[i])),
            Targets = Array.ConvertAll(own, i => whole.Targets[i]),
            AnswerIds = Array.ConvertAll(own, i => whole.AnswerIds[i]),
            Positions = whole.Positions is { } positions ? slice.Take(positions) : null,
            Slice = slice,
        };

        long Local(long position) => position / whole.Length * slice.Length + local[position % whole.Length];
    }

    /// <summary>The rank's of the B · T numbers of a micro-batch; 0 for padding.</summary>
    private long[] Take(long[] values)
    {
        var places = Places;
        var taken = new long[Count * places.Length];
        for (var i = 0; i < taken.Length; i++)
        {
            var (row, place) = (i / places.Length, places[i % places.Length]);
            if (place < RowLength)
                taken[i] = values[row * RowLength + place];
        }
        return taken;
    }

    private IEnumerable<long> Range(int from) => Enumerable.Range(from, Piece).Select(place => (long)place);
}
