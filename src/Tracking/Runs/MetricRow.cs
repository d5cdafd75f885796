namespace Memopt.Tracking;

/// <summary>Values of any metrics at one step.</summary>
/// <param name="Step">The step they belong to.</param>
/// <param name="Values">By name; NaN and infinities are kept.</param>
/// <param name="Time">When, or null for now.</param>
public sealed record MetricRow(long Step, IReadOnlyDictionary<string, double> Values, DateTimeOffset? Time = null);
