using Memopt.Trainer.Config;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>Chooses a source's rows for training or evaluation, by data.evalShare and the source's samples.</summary>
internal static class RowChoice
{
    /// <summary>The rows that a source gives for a role, ascending; null when that is all of them.</summary>
    public static int[]? Of(IReadOnlyList<TokenShard> shards, DataSource source, DataConfig config, DataRole role)
    {
        if (config.EvalShare == 0 && source.Samples is null)
            return null;
        var (hashes, parts) = Identities(shards);
        IEnumerable<int> rows = source.Samples is { } samples
            ? Sampled(hashes, parts, samples, config.Seed)
            : Enumerable.Range(0, hashes.Length);
        return [.. config.EvalShare == 0 ? rows : rows.Where(row => IsOn(role, hashes[row], config.EvalShare))];
    }

    /// <summary>The side is the row's own: no seed, and nothing of where it stands.</summary>
    private static bool IsOn(DataRole role, ulong hash, double evalShare) =>
        SplitMix64.UnitInterval(SplitMix64.Of(hash)) < evalShare == (role == DataRole.Eval);

    /// <summary>The hash of each row's content; and which part of a split row it is, from 0.</summary>
    private static (ulong[] Hashes, byte[] Parts) Identities(IReadOnlyList<TokenShard> shards)
    {
        var count = shards.Sum(shard => shard.Rows);
        var (hashes, parts, at) = (new ulong[count], new byte[count], 0);
        foreach (var shard in shards)
        {
            shard.Hashes(hashes.AsSpan(at, shard.Rows));
            shard.Parts(parts.AsSpan(at, shard.Rows));
            at += shard.Rows;
        }
        return (hashes, parts);
    }

    /// <summary>The rows with the smallest numbers drawn from seed and content. Parts of a row that was split have one
    /// hash and follow each other.</summary>
    private static IEnumerable<int> Sampled(ulong[] hashes, byte[] parts, int samples, long seed)
    {
        var salt = SplitMix64.Of((ulong)seed);
        var all = Enumerable.Range(0, hashes.Length);
        var leads = all.Where(row => row == 0 || parts[row] == 0 || hashes[row] != hashes[row - 1]).ToArray();
        var keys = Array.ConvertAll(leads, row => (SplitMix64.Of(hashes[row] ^ salt), row));
        Array.Sort(keys);
        return keys.Take(samples)
            .Select(key => key.row)
            .Order()
            .SelectMany(lead =>
                Enumerable
                    .Range(lead, hashes.Length - lead)
                    .TakeWhile(row => row == lead || (parts[row] > 0 && hashes[row] == hashes[lead]))
            );
    }
}
