using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.Sweeps;

namespace Memopt.Tool.Commands;

/// <summary>Ranks the combinations of a sweep by its metric.</summary>
internal sealed class SweepRanking(Sweep sweep, LiteRunStore store)
{
    /// <summary>The best combination; null when there is none: scores on different evaluation data say nothing about
    /// each other.</summary>
    /// <param name="children">The combinations that were trained.</param>
    /// <param name="tell">Receives why there is none.</param>
    public SweepChild? Best(List<SweepChild> children, Action<string> tell)
    {
        var judged = children
            .Where(child => child.Value is { } value && !double.IsNaN(value))
            .GroupBy(child => RegisteredAdapter.ByData(sweep.Metric) ? child.EvalData : null)
            .Select(BestOf)
            .ToList();
        if (judged.Count > 1)
            tell(
                $"none: combinations were judged on {judged.Count} different sets of evaluation data; the best on "
                    + $"each: {string.Join(", ", judged.Select(child => child.Number))}"
            );
        else if (judged.Count == 0 && children.Find(child => child.RunId is not null) is { } trained)
            tell(
                $"none: no combination has {sweep.Metric} as a number; runs have "
                    + $"{string.Join(", ", store.Get(trained.RunId!)!.Metrics.Keys.Order(StringComparer.Ordinal))}"
            );
        return judged.Count == 1 ? judged[0] : null;
    }

    private SweepChild BestOf(IEnumerable<SweepChild> some) =>
        sweep.Goal == SweepGoal.Minimize ? some.MinBy(child => child.Value)! : some.MaxBy(child => child.Value)!;
}
