namespace Memopt.Tracking;

/// <summary>A metric of a run in a few numbers, kept as points come in. NaN counts for <see cref="Count"/> and
/// <see cref="Last"/> only.</summary>
/// <param name="Count">Points.</param>
/// <param name="Last">Value at the highest step; of several there, the latest, and of one instant the greatest, as
/// MLflow has it.</param>
/// <param name="LastStep">That step.</param>
/// <param name="LastTime">Its time, milliseconds since 1970, UTC.</param>
/// <param name="Min">Least value, NaN when there is none.</param>
/// <param name="MinStep">Where it was first reached.</param>
/// <param name="Max">Greatest value, NaN when there is none.</param>
/// <param name="MaxStep">Where it was first reached.</param>
/// <param name="Mean">Mean of the finite values, NaN when there is none.</param>
public sealed record MetricSummary(
    long Count,
    double Last,
    long LastStep,
    long LastTime,
    double Min,
    long MinStep,
    double Max,
    long MaxStep,
    double Mean
);
