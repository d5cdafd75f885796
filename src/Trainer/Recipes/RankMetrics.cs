using Memopt.Tracking;

namespace Memopt.Trainer.Recipes;

/// <summary>Memory and throughput of each rank, as metrics of the one run.</summary>
internal static class RankMetrics
{
    /// <summary>Steps between two points.</summary>
    public const int Every = 10;

    /// <summary>A point of every rank: <c>rank_1.memory_bytes</c>, <c>rank_1.tokens_per_second</c>.</summary>
    /// <param name="step">Steps made.</param>
    /// <param name="ranks">Of each rank its peak bytes and its tokens per second.</param>
    public static MetricRow Of(int step, IReadOnlyList<(long Bytes, long TokensPerSecond)> ranks)
    {
        var values = new Dictionary<string, double>();
        for (var rank = 0; rank < ranks.Count; rank++)
        {
            values[$"rank_{rank}.memory_bytes"] = ranks[rank].Bytes;
            if (ranks[rank].TokensPerSecond > 0)
                values[$"rank_{rank}.tokens_per_second"] = ranks[rank].TokensPerSecond;
        }
        return new(step, values);
    }
}
