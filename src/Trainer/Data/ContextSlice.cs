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
    /// <summary>Tokens of a row that the rank has.</summary>
    public int Length => (int)Footprints.ContextTokens(RowLength, Ranks);

    /// <summary>Tokens of a whole row, padded to equal pieces.</summary>
    public int PaddedLength => Length * Ranks;

    /// <summary>(Length) the place of each of the rank's tokens in the whole row. Those from
    /// <see cref="RowLength"/> on are padding.</summary>
    public long[] Places =>
        [.. Pieces.SelectMany(start => Enumerable.Range(start, Piece)).Select(place => (long)place)];

    /// <summary>(B · Length) the number of each of the rank's tokens among the B · T of the whole micro-batch. That of
    /// padding may be another's.</summary>
    public long[] Rows
    {
        get
        {
            var places = Places;
            return [.. Enumerable.Range(0, Count).SelectMany(b => places.Select(place => b * (long)RowLength + place))];
        }
    }

    /// <summary>(B · PaddedLength) where the tokens of whole rows are among those of all ranks, (c, 2, B · Length), in
    /// the first of each two. Keys are gathered there, and values in the second.</summary>
    public long[] KeyRows =>
        [.. Enumerable.Range(0, Count).SelectMany(b => Enumerable.Range(0, PaddedLength).Select(t => KeyRow(b, t)))];

    /// <summary>What the rank computes of a micro-batch: its tokens, and the predictions that are made from them.
    /// Documents stay those of the whole rows.</summary>
    public static MicroBatch Of(MicroBatch whole, int rank, int ranks)
    {
        var slice = new ContextSlice(rank, ranks, whole.Count, whole.Length);
        var places = slice.Places;
        var local = new int[slice.PaddedLength];
        Array.Fill(local, -1);
        for (var i = 0; i < places.Length; i++)
            local[places[i]] = i;
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

    /// <summary>The rank's queries as sequences, each with the keys that come before its end in its document. A query
    /// attends to the keys of its sequence up to its own place, counted from the end.</summary>
    /// <param name="documents">Of the whole rows; null where each row is one.</param>
    public ContextSequences Sequences(Documents? documents)
    {
        var (ofQueries, ofKeys, keys) = (new List<int> { 0 }, new List<int> { 0 }, new List<long>());
        for (var row = 0; row < Count; row++)
        {
            var starts = Starts(documents, row);
            foreach (var piece in Pieces)
            {
                for (var i = 0; i + 1 < starts.Count; i++)
                {
                    var (from, to) = (Math.Max(starts[i], piece), Math.Min(starts[i + 1], piece + Piece));
                    if (from >= to)
                        continue;
                    ofQueries.Add(ofQueries[^1] + to - from);
                    ofKeys.Add(ofKeys[^1] + to - starts[i]);
                    for (var place = starts[i]; place < to; place++)
                        keys.Add(KeyRow(row, place));
                }
            }
        }
        return new([.. ofQueries], [.. ofKeys], [.. keys]);
    }

    private int Piece => Length / 2;

    /// <summary>Where the rank's pieces begin in a row.</summary>
    private int[] Pieces => [Rank * Piece, (2 * Ranks - 1 - Rank) * Piece];

    /// <summary>Where the documents of a row begin in it, and the end of the padded row.</summary>
    private List<int> Starts(Documents? documents, int row)
    {
        if (documents is null)
            return [0, PaddedLength];
        var first = row * RowLength;
        var starts = documents
            .CuSeqlens.Where(start => start >= first && start < first + RowLength)
            .Select(start => start - first)
            .Append(RowLength)
            .ToList();
        if (PaddedLength > RowLength)
            starts.Add(PaddedLength);
        return starts;
    }

    private long KeyRow(int row, int place)
    {
        var (piece, at) = (place / Piece, place % Piece);
        var (rank, half) = piece < Ranks ? (piece, 0) : (2 * Ranks - 1 - piece, 1);
        return 2L * rank * Count * Length + row * (long)Length + half * Piece + at;
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
}

/// <summary>The queries of a context parallel rank as sequences, and the keys of each.</summary>
/// <param name="OfQueries">Where each sequence begins among the rank's tokens, and the end of the last.</param>
/// <param name="OfKeys">Where each begins among the keys, likewise.</param>
/// <param name="KeyRows">Where the keys are, as <see cref="ContextSlice.KeyRows"/>. A key may come twice.</param>
internal sealed record ContextSequences(int[] OfQueries, int[] OfKeys, long[] KeyRows);
