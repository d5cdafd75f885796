namespace Memopt.Trainer.Data;

/// <summary>How often the rows of a stretch come in an epoch.</summary>
/// <param name="First">Its first row.</param>
/// <param name="Count">Rows.</param>
/// <param name="Weight">Times each comes; what is behind the point is a share of the rows, others in each
/// epoch.</param>
internal readonly record struct SourceWeight(int First, int Count, double Weight);

/// <summary>The rows of a data set, read and decoded when asked for. In memory are their lengths and, when only some
/// are taken, which.</summary>
internal sealed class TokenRows : IReadOnlyList<Row>
{
    private readonly IReadOnlyList<TokenShard> shards;
    private readonly int[] firsts,
        lengths;
    private readonly int[]? picks;

    /// <param name="shards">With all rows.</param>
    /// <param name="picks">Which of them, ascending; null takes all.</param>
    /// <param name="shares">Stretches with a weight; empty when each row comes once.</param>
    public TokenRows(IReadOnlyList<TokenShard> shards, int[]? picks = null, IReadOnlyList<SourceWeight>? shares = null)
    {
        (this.shards, this.picks, Shares) = (shards, picks, shares ?? []);
        firsts = new int[shards.Count + 1];
        for (var i = 0; i < shards.Count; i++)
            firsts[i + 1] = checked(firsts[i] + shards[i].Rows);
        lengths = new int[picks?.Length ?? firsts[^1]];
        if (picks is null)
        {
            for (var i = 0; i < shards.Count; i++)
                shards[i].Lengths(lengths.AsSpan(firsts[i], shards[i].Rows));
            return;
        }
        ForShards(
            (shard, rows, into) =>
            {
                var all = new int[shard.Rows];
                shard.Lengths(all);
                for (var i = 0; i < rows.Length; i++)
                    lengths[into + i] = all[rows[i]];
            }
        );
    }

    public int Count => lengths.Length;

    /// <summary>Tokens of each row.</summary>
    public ReadOnlySpan<int> Lengths => lengths;

    public IReadOnlyList<SourceWeight> Shares { get; }

    public Row this[int row]
    {
        get
        {
            var (shard, at) = Place(row);
            return shards[shard][at];
        }
    }

    /// <summary>The file that a row is from.</summary>
    public string FileOf(int row) => shards[Place(row).Shard].Source;

    private (int Shard, int Row) Place(int row)
    {
        var at = picks is null ? row : picks[row];
        var shard = Array.BinarySearch(firsts, at) is var found && found >= 0 ? Last(found) : ~found - 1;
        return (shard, at - firsts[shard]);
    }

    /// <summary>Tokens that carry loss, of all rows.</summary>
    public long TargetCount()
    {
        if (picks is null)
            return shards.Sum(shard => shard.Counts.Trained);
        long sum = 0;
        ForShards(
            (shard, rows, _) =>
            {
                var all = new int[shard.Rows];
                shard.TargetCounts(all);
                foreach (var row in rows)
                    sum += all[row];
            }
        );
        return sum;
    }

    public IEnumerator<Row> GetEnumerator()
    {
        for (var i = 0; i < Count; i++)
            yield return this[i];
    }

    System.Collections.IEnumerator System.Collections.IEnumerable.GetEnumerator() => GetEnumerator();

    // Empty shards share their first row with the next: the row is in the last of them.
    private int Last(int found)
    {
        while (found + 1 < firsts.Length - 1 && firsts[found + 1] == firsts[found])
            found++;
        return found;
    }

    /// <summary>Each shard with its picked rows and where these are among the picks.</summary>
    private void ForShards(Action<TokenShard, ReadOnlySpan<int>, int> visit)
    {
        var (at, local) = (0, new int[shards.Count == 0 ? 0 : shards.Max(shard => shard.Rows)]);
        for (var i = 0; i < shards.Count; i++)
        {
            var from = at;
            for (; at < picks!.Length && picks[at] < firsts[i + 1]; at++)
                local[at - from] = picks[at] - firsts[i];
            if (at > from)
                visit(shards[i], local.AsSpan(0, at - from), from);
        }
    }
}

internal static class RowLengths
{
    /// <summary>Tokens of a row, without reading it where that is known.</summary>
    public static int LengthOf(this IReadOnlyList<Row> rows, int row) =>
        rows is TokenRows known ? known.Lengths[row] : rows[row].Ids.Length;
}
