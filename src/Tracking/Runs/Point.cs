namespace Memopt.Tracking;

/// <summary>One value of a metric.</summary>
/// <param name="Step">The step it belongs to.</param>
/// <param name="Value">May be NaN or infinite.</param>
/// <param name="Time">Milliseconds since 1970, UTC.</param>
public readonly record struct Point(long Step, double Value, long Time);
