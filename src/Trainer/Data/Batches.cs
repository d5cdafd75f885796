using Memopt.Trainer.Config;

namespace Memopt.Trainer.Data;

/// <summary>Sequences computed at once, as flat arrays.</summary>
/// <param name="Count">Sequences, B.</param>
/// <param name="Length">Tokens of the longest, T; shorter ones are padded at the end, where causal attention never
/// looks.</param>
/// <param name="Ids">(B · T) tokens.</param>
/// <param name="LossPositions">Which of the B · T positions predict a trained token.</param>
/// <param name="Targets">The tokens they should predict.</param>
/// <param name="AnswerIds">Which sequence each prediction belongs to, for per-answer scores: index of the first
/// prediction of its run.</param>
/// <param name="Positions">(B · T) position of each token in its own row, when packed.</param>
/// <param name="Documents">Where each row begins in the B · T tokens, when packed; padding is a document of its
/// own.</param>
/// <param name="Tokens">Tokens without padding.</param>
internal sealed record MicroBatch(
    int Count,
    int Length,
    long[] Ids,
    long[] LossPositions,
    long[] Targets,
    int[] AnswerIds,
    long[]? Positions,
    Documents? Documents,
    long Tokens
)
{
    /// <summary>Names of the inputs; those of transformers where it has them.</summary>
    public const string IdsInput = "input_ids",
        PositionsInput = "position_ids",
        LossPositionsInput = "loss_positions",
        LabelsInput = "labels";

    /// <summary>Which tokens of the rows these are, where context parallel ranks share the rows; null where the rows
    /// are whole. <see cref="Documents"/> and <see cref="Tokens"/> are those of the whole rows.</summary>
    public ContextSlice? Slice { get; init; }

    /// <summary>What goes to the device, by name, with its shape.</summary>
    public IEnumerable<(string Name, long[] Values, long[] Shape)> Inputs
    {
        get
        {
            yield return (IdsInput, Ids, [Count, Length]);
            if (Positions is not null)
                yield return (PositionsInput, Positions, [Count, Length]);
            yield return (LossPositionsInput, LossPositions, [LossPositions.Length]);
            yield return (LabelsInput, Targets, [Targets.Length]);
        }
    }
}

/// <summary>The documents of a packed batch.</summary>
/// <param name="CuSeqlens">Where each begins in the flattened batch, and the end of the last.</param>
/// <param name="MaxSeqlen">Tokens of the longest.</param>
internal sealed record Documents(int[] CuSeqlens, int MaxSeqlen);

/// <summary>The micro-batches of one optimizer step that one rank computes.</summary>
/// <param name="First">Number of the first among the micro-batches of all ranks: dropout's masks follow from it, so
/// that the number of ranks does not change them.</param>
/// <param name="Parts">None where other ranks have them all.</param>
internal sealed record StepBatch(int First, IReadOnlyList<MicroBatch> Parts)
{
    /// <summary>Micro-batches of the rank that has the most in this step.</summary>
    public int Most { get; init; } = Parts.Count;
}

/// <summary>
/// The order of the data: epochs, each a new permutation, each cut into steps of a batch; the last step of an epoch has
/// the sequences that are left, as in transformers' Trainer. Any step's batch follows from the seed and its number
/// alone, so a resumed run needs nothing but the step to be where it was.
/// </summary>
internal sealed class Batches
{
    /// <summary>Number of this order of rows, kept in a checkpoint: a run that was begun in another does not go on in
    /// this one.</summary>
    public const int Order = 2;

    private readonly IReadOnlyList<Row> rows;
    private readonly DataConfig data;
    private readonly int batch,
        microBatch;
    private readonly List<long> firsts = [0]; // first step of each epoch, as far as it was asked for
    private (int Epoch, Sequences Sequences) current = (-1, new([], null));

    /// <param name="rows">To draw from; read when their batch comes.</param>
    /// <param name="data">Seed, shuffling, packing.</param>
    /// <param name="train">Steps or epochs, and the batch.</param>
    /// <param name="microBatch">Sequences computed at once.</param>
    public Batches(IReadOnlyList<Row> rows, DataConfig data, TrainConfig train, int microBatch)
    {
        (this.rows, this.data, batch, this.microBatch) = (rows, data, train.BatchSize, microBatch);
        TotalSteps = train.Steps ?? (int)Math.Clamp(StepsOf(train.Epochs), 1, int.MaxValue);
    }

    /// <summary>Optimizer steps of the whole run.</summary>
    public int TotalSteps { get; }

    /// <summary>Tokens of the rows of the first epoch, each as often as it comes.</summary>
    public long EpochTokens => Epoch(0).Rows.Sum(row => (long)rows.LengthOf(row));

    /// <summary>Micro-batches of a whole step on the rank that has the most.</summary>
    /// <param name="size">Sequences computed at once.</param>
    /// <param name="ranks">Ranks that divide a step.</param>
    public int MicroBatches(int size, int ranks) => ((batch + size - 1) / size + ranks - 1) / ranks;

    /// <summary>The micro-batches of a step, counted from 0.</summary>
    /// <param name="step">The step.</param>
    /// <param name="size">Sequences computed at once, where they are others than the run began with. The sequences of
    /// a step stay the same.</param>
    public IReadOnlyList<MicroBatch> Step(int step, int? size = null) => Shard(step, 0, 1, size).Parts;

    /// <summary>The micro-batches of a step, counted from 0, that one of several ranks computes: of n micro-batches on
    /// N ranks, rank r has the r-th block of ⌈n / N⌉.</summary>
    /// <param name="step">The step.</param>
    /// <param name="rank">The rank.</param>
    /// <param name="ranks">All ranks.</param>
    /// <param name="size">As for <see cref="Step"/>.</param>
    public StepBatch Shard(int step, int rank, int ranks, int? size = null)
    {
        var number = EpochOf(step);
        var (epoch, from) = (Epoch(number), (int)(step - First(number)) * batch);
        var parts = Enumerable.Range(from, Math.Min(batch, epoch.Count - from)).Chunk(size ?? microBatch).ToList();
        var block = (parts.Count + ranks - 1) / ranks;
        return new(
            rank * block,
            [
                .. parts
                    .Skip(rank * block)
                    .Take(block)
                    .Select(part => Collate(rows, Array.ConvertAll(part, at => epoch[at]), data.Packing)),
            ]
        )
        {
            Most = block,
        };
    }

    /// <summary>Rows in file order, for evaluation.</summary>
    /// <param name="rows">All rows.</param>
    /// <param name="microBatch">Sequences computed at once.</param>
    /// <param name="rank">A rank: of N ranks, each has every N-th micro-batch.</param>
    /// <param name="ranks">N.</param>
    public static IEnumerable<MicroBatch> InOrder(
        IReadOnlyList<Row> rows,
        int microBatch,
        int rank = 0,
        int ranks = 1
    ) =>
        Enumerable
            .Range(0, rows.Count)
            .Select(i => new[] { i })
            .Chunk(microBatch)
            .Where((_, number) => number % ranks == rank)
            .Select(sequences => Collate(rows, sequences, packed: false));

    /// <summary>Lays sequences (each a list of rows) side by side, padded to the longest.</summary>
    internal static MicroBatch Collate(IReadOnlyList<Row> rows, int[][] sequences, bool packed) =>
        Collate(Array.ConvertAll(sequences, sequence => Array.ConvertAll(sequence, row => rows[row])), packed);

    private static MicroBatch Collate(Row[][] sequences, bool packed)
    {
        var length = Padded(sequences.Max(sequence => sequence.Sum(row => row.Ids.Length)));
        var size = sequences.Length * length;
        var ids = new long[size];
        var positions = packed ? new long[size] : null;
        var starts = new List<int>();
        var (predicting, targets, owners) = (new List<long>(), new List<long>(), new List<int>());
        long tokens = 0;
        for (var b = 0; b < sequences.Length; b++)
        {
            var at = b * length;
            foreach (var row in sequences[b])
            {
                var owner = -1;
                starts.Add(at);
                for (var t = 0; t < row.Ids.Length; t++)
                {
                    ids[at + t] = row.Ids[t];
                    if (packed)
                        positions![at + t] = t;
                    if (t == 0 || row.Labels[t] < 0)
                    {
                        owner = -1;
                        continue;
                    }
                    owner = owner < 0 ? predicting.Count : owner;
                    predicting.Add(at + t - 1);
                    targets.Add(row.Labels[t]);
                    owners.Add(owner);
                }
                at += row.Ids.Length;
                tokens += row.Ids.Length;
            }
            if (at < (b + 1) * length)
                starts.Add(at);
        }
        starts.Add(size);
        var documents = packed
            ? new Documents([.. starts], starts.Zip(starts.Skip(1), (from, to) => to - from).Max())
            : null;
        return new(
            sequences.Length,
            length,
            ids,
            [.. predicting],
            [.. targets],
            [.. owners],
            positions,
            documents,
            tokens
        );
    }

    /// <summary>Tokens that a sequence of some length takes: long ones are padded to a multiple, so that a GPU meets
    /// few shapes and memory few sizes.</summary>
    public static int Padded(int length) => length < 1024 ? length : (length + 127) / 128 * 128;

    /// <summary>Steps of so many epochs, rounded up, as transformers' Trainer counts them. A weight may give each epoch
    /// other rows.</summary>
    private double StepsOf(double epochs)
    {
        var whole = (int)Math.Floor(epochs);
        return Math.Ceiling(
            Alike ? epochs * First(1) : First(whole) + (epochs - whole) * (First(whole + 1) - First(whole))
        );
    }

    private int EpochOf(int step)
    {
        if (Alike)
            return (int)(step / First(1));
        while (firsts[^1] <= step)
            First(firsts.Count);
        return firsts.FindLastIndex(first => first <= step); // an epoch without rows begins where the next one does
    }

    /// <summary>The first step of an epoch.</summary>
    private long First(int epoch)
    {
        while (firsts.Count <= (Alike ? Math.Min(epoch, 1) : epoch))
            firsts.Add(
                firsts[^1] + ((Alike && !data.Packing ? rows.Count : Epoch(firsts.Count - 1).Count) + batch - 1) / batch
            );
        return Alike ? epoch * firsts[^1] : firsts[epoch];
    }

    /// <summary>Whether every epoch has the same rows, so as many sequences: packing gives as many whatever the
    /// order.</summary>
    private bool Alike => Shares.Count == 0;

    private IReadOnlyList<SourceWeight> Shares => (rows as TokenRows)?.Shares ?? [];

    /// <summary>The sequences of an epoch, each the rows packed into it (one row without packing).</summary>
    private Sequences Epoch(int epoch)
    {
        if (current.Epoch == epoch)
            return current.Sequences;
        var order = Rows(epoch);
        if (data.Shuffle)
        {
            var state = unchecked((ulong)data.Seed * 0x9E3779B97F4A7C15UL + (ulong)epoch + 1);
            for (var i = order.Length - 1; i > 0; i--)
            {
                var j = (int)(Next(ref state) % (ulong)(i + 1));
                (order[i], order[j]) = (order[j], order[i]);
            }
        }
        current = (epoch, data.Packing ? Pack(order) : new(order, null));
        return current.Sequences;
    }

    /// <summary>The rows that come in an epoch, in the file's order: each as often as its weight says, and of what is
    /// behind the point of a weight those that a draw from seed, epoch and row takes.</summary>
    private int[] Rows(int epoch)
    {
        if (Shares.Count == 0)
            return [.. Enumerable.Range(0, rows.Count)];
        var order = new List<int>(rows.Count);
        foreach (var (first, count, weight) in Shares)
        {
            var (times, rest) = ((int)weight, weight - Math.Floor(weight));
            for (var row = first; row < first + count; row++)
            {
                for (var time = 0; time < times; time++)
                    order.Add(row);
                if (
                    rest > 0
                    && SplitMix64.UnitInterval(
                        SplitMix64.Of(
                            SplitMix64.Of(SplitMix64.Of(unchecked((ulong)data.Seed)) ^ (ulong)epoch) ^ (ulong)row
                        )
                    ) < rest
                )
                    order.Add(row);
            }
        }
        return [.. order];
    }

    /// <summary>Best fit: each row, longest first, goes to the fullest sequence that still has room, of several to the
    /// first; sequences keep the order of their first row, and rows theirs within a sequence. All in arrays of numbers,
    /// as there may be millions of rows.
    /// </summary>
    private Sequences Pack(int[] order)
    {
        var longest = order.Length == 0 ? 0 : order.Max(row => rows.LengthOf(row));
        // Places in the order by length, longest first, by counting.
        var lengths = Array.ConvertAll(order, rows.LengthOf);
        var next = new int[longest + 2];
        foreach (var length in lengths)
            next[longest - length + 1]++;
        for (var i = 1; i < next.Length; i++)
            next[i] += next[i - 1];
        var byLength = new int[order.Length];
        for (var at = 0; at < order.Length; at++)
            byLength[next[longest - lengths[at]]++] = at;

        var open = new OpenBins(data.MaxLength);
        var (binOf, bins) = (new int[order.Length], 0);
        foreach (var at in byLength)
        {
            var (bin, room) = open.Take(lengths[at]) ?? (bins++, data.MaxLength);
            binOf[at] = bin;
            if (room > lengths[at])
                open.Add(bin, room - lengths[at]);
        }

        // Bins become sequences in the order in which the order first meets them.
        var sequenceOf = new int[bins];
        Array.Fill(sequenceOf, -1);
        var (starts, count) = (new int[bins + 1], 0);
        for (var at = 0; at < order.Length; at++)
        {
            ref var sequence = ref sequenceOf[binOf[at]];
            sequence = sequence < 0 ? count++ : sequence;
            starts[sequence + 1]++;
        }
        for (var i = 1; i <= bins; i++)
            starts[i] += starts[i - 1];
        var (packed, fill) = (new int[order.Length], starts.ToArray());
        for (var at = 0; at < order.Length; at++)
            packed[fill[sequenceOf[binOf[at]]]++] = order[at];
        return new(packed, starts);
    }

    // SplitMix64 (Steele et al. 2014): fixed here so that the order never depends on a runtime's version.
    private static ulong Next(ref ulong state)
    {
        var value = SplitMix64.Of(state);
        state = unchecked(state + 0x9E3779B97F4A7C15UL);
        return value;
    }

    /// <summary>Lists of rows, one behind the other in one array.</summary>
    /// <param name="Rows">Of all sequences.</param>
    /// <param name="Starts">Where each begins, and the end of the last; null when each is one row.</param>
    private sealed record Sequences(int[] Rows, int[]? Starts)
    {
        public int Count => Starts is null ? Rows.Length : Starts.Length - 1;

        public int[] this[int sequence] =>
            Starts is null ? [Rows[sequence]] : Rows[Starts[sequence]..Starts[sequence + 1]];
    }

    /// <summary>Sequences with room, by their room.</summary>
    private sealed class OpenBins(int longest)
    {
        private readonly PriorityQueue<int, int>?[] byRoom = new PriorityQueue<int, int>?[longest + 1];
        private readonly ulong[] some = new ulong[longest / 64 + 1]; // a bit for each room that a sequence has

        public void Add(int bin, int room)
        {
            (byRoom[room] ??= new()).Enqueue(bin, bin);
            some[room / 64] |= 1UL << (room % 64);
        }

        /// <summary>Takes out the first of the sequences with the least room that is enough.</summary>
        public (int Bin, int Room)? Take(int length)
        {
            if (length > longest)
                return null;
            var word = length / 64;
            var bits = some[word] & (~0UL << (length % 64));
            while (bits == 0)
            {
                if (++word == some.Length)
                    return null;
                bits = some[word];
            }
            var room = word * 64 + System.Numerics.BitOperations.TrailingZeroCount(bits);
            var bin = byRoom[room]!.Dequeue();
            if (byRoom[room]!.Count == 0)
                some[word] &= ~(1UL << (room % 64));
            return (bin, room);
        }
    }
}
