namespace Memopt.Trainer.Data;

/// <summary>Sequences computed at once, as flat arrays.</summary>
/// <param name="Count">Sequences, B.</param>
/// <param name="Length">Tokens of the longest, T; shorter ones are padded at the end, where causal attention never looks.</param>
/// <param name="Ids">(B · T) tokens.</param>
/// <param name="Predicting">Which of the B · T positions predict a trained token.</param>
/// <param name="Targets">The tokens they should predict.</param>
/// <param name="Owners">Which sequence each prediction belongs to, for per-answer scores: index of the first prediction of its run.</param>
/// <param name="Positions">(B · T) position of each token in its own row, when packed.</param>
/// <param name="Documents">Where each row begins in the B · T tokens, when packed; padding is a document of its own.</param>
/// <param name="Tokens">Tokens without padding.</param>
public sealed record MicroBatch(int Count, int Length, long[] Ids, long[] Predicting, long[] Targets, int[] Owners, long[]? Positions, Documents? Documents, long Tokens);

/// <summary>The documents of a packed batch.</summary>
/// <param name="Starts">Where each begins in the flattened batch, and the end of the last.</param>
/// <param name="Longest">Tokens of the longest.</param>
public sealed record Documents(int[] Starts, int Longest);

/// <summary>
/// The order of the data: a stream of epochs, each a new permutation, cut into steps. Any step's batch follows from the seed and its
/// number alone, so a resumed run needs nothing but the step to be where it was.
/// </summary>
public sealed class Batches
{
    private readonly IReadOnlyList<Row> rows;
    private readonly DataConfig data;
    private readonly int batch;
    private readonly long total;
    private readonly List<long> starts = [0];                                // first sequence number of each epoch
    private (int Epoch, int[][] Sequences) current = (-1, []);

    public Batches(IReadOnlyList<Row> rows, DataConfig data, TrainConfig train, int microBatch)
    {
        (this.rows, this.data, batch, MicroBatch) = (rows, data, train.BatchSize, microBatch);
        total = train.Steps is { } steps ? (long)steps * batch : SequencesOf(train.Epochs);
        TotalSteps = (int)Math.Max(1, (total + batch - 1) / batch);
    }

    /// <summary>Optimizer steps of the whole run.</summary>
    public int TotalSteps { get; }

    /// <summary>Sequences computed at once; may change between steps, whose sequences stay the same.</summary>
    public int MicroBatch { get; set; }

    /// <summary>The micro-batches of a step, counted from 0.</summary>
    public IReadOnlyList<MicroBatch> Step(int step)
    {
        var chosen = new List<int[]>();
        var from = (long)step * batch;
        var until = Math.Min(from + batch, total);
        for (var number = from; number < until; number++)
            chosen.Add(Sequence(number));
        return [.. chosen.Chunk(MicroBatch).Select(sequences => Form(rows, sequences, data.Packing))];
    }

    /// <summary>Rows in file order, for evaluation.</summary>
    public static IEnumerable<MicroBatch> InOrder(IReadOnlyList<Row> rows, int microBatch) =>
        Enumerable.Range(0, rows.Count).Select(i => new[] { i }).Chunk(microBatch).Select(sequences => Form(rows, sequences, packed: false));

    /// <summary>Lays sequences (each a list of rows) side by side, padded to the longest.</summary>
    internal static MicroBatch Form(IReadOnlyList<Row> rows, int[][] sequences, bool packed)
    {
        var length = Padded(sequences.Max(sequence => sequence.Sum(row => rows[row].Ids.Length)));
        var size = sequences.Length * length;
        var ids = new long[size];
        var positions = packed ? new long[size] : null;
        var starts = new List<int>();
        var (predicting, targets, owners) = (new List<long>(), new List<long>(), new List<int>());
        long tokens = 0;
        for (var b = 0; b < sequences.Length; b++)
        {
            var at = b * length;
            foreach (var row in sequences[b].Select(index => rows[index]))
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
        var documents = packed ? new Documents([.. starts], starts.Zip(starts.Skip(1), (from, to) => to - from).Max()) : null;
        return new(sequences.Length, length, ids, [.. predicting], [.. targets], [.. owners], positions, documents, tokens);
    }

    /// <summary>Tokens that a sequence of some length takes: long ones are padded to a multiple, so that a GPU meets few shapes and memory few sizes.</summary>
    public static int Padded(int length) => length < 1024 ? length : (length + 127) / 128 * 128;

    private long SequencesOf(double epochs)
    {
        var whole = (int)Math.Floor(epochs);
        var sequences = Start(whole);
        return epochs > whole ? sequences + (long)Math.Round((epochs - whole) * (Start(whole + 1) - sequences)) : sequences;
    }

    private int[] Sequence(long number)
    {
        var epoch = 0;
        while (Start(epoch + 1) <= number)
            epoch++;
        return Epoch(epoch)[number - Start(epoch)];
    }

    private long Start(int epoch)
    {
        while (starts.Count <= epoch)
            starts.Add(starts[^1] + Epoch(starts.Count - 1).Length);
        return starts[epoch];
    }

    /// <summary>The sequences of an epoch, each the rows packed into it (one row without packing).</summary>
    private int[][] Epoch(int epoch)
    {
        if (current.Epoch == epoch)
            return current.Sequences;
        var order = Enumerable.Range(0, rows.Count).ToArray();
        if (data.Shuffle)
        {
            var state = unchecked((ulong)data.Seed * 0x9E3779B97F4A7C15UL + (ulong)epoch + 1);
            for (var i = order.Length - 1; i > 0; i--)
            {
                var j = (int)(Next(ref state) % (ulong)(i + 1));
                (order[i], order[j]) = (order[j], order[i]);
            }
        }
        current = (epoch, data.Packing ? Pack(order) : Array.ConvertAll(order, row => new[] { row }));
        return current.Sequences;
    }

    /// <summary>Best fit: each row, longest first, goes to the fullest sequence that still has room; sequences keep the order of their first row.</summary>
    private int[][] Pack(int[] order)
    {
        var rank = new int[rows.Count];
        for (var i = 0; i < order.Length; i++)
            rank[order[i]] = i;
        var open = new SortedSet<(int Room, int Bin)>();
        var bins = new List<List<int>>();
        foreach (var row in order.OrderByDescending(row => rows[row].Ids.Length).ThenBy(row => rank[row]))
        {
            var length = rows[row].Ids.Length;
            var bin = bins.Count;
            foreach (var slot in open.GetViewBetween((length, 0), (int.MaxValue, int.MaxValue)))
            {
                open.Remove(slot);
                (bin, length) = (slot.Bin, data.MaxLength - slot.Room + length);
                break;
            }
            if (bin == bins.Count)
                bins.Add([]);
            bins[bin].Add(row);
            if (length < data.MaxLength)
                open.Add((data.MaxLength - length, bin));
        }
        return [.. bins.Select(bin => bin.OrderBy(row => rank[row]).ToArray()).OrderBy(bin => rank[bin[0]])];
    }

    // SplitMix64 (Steele et al. 2014): fixed here so that the order never depends on a runtime's version.
    private static ulong Next(ref ulong state)
    {
        unchecked
        {
            var z = state += 0x9E3779B97F4A7C15UL;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9UL;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBUL;
            return z ^ (z >> 31);
        }
    }
}
