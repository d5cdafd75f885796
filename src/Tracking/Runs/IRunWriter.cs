namespace Memopt.Tracking;

/// <summary>Writes one run. Thread-safe. What a call has returned from survives a kill of the process, and within a
/// second a loss of power; evaluations, events, links and the end survive that at once. A call that throws
/// <see cref="TrackingException"/> is not lost: its record waits in memory and goes out with the next call.
/// </summary>
public interface IRunWriter : IDisposable
{
    void Append(IReadOnlyList<StepRow> rows);
    void Append(EvalRow row);
    void Append(MetricRow row);
    void Append(RunEvent happened);

    /// <summary>Adds a parameter that the config does not have.</summary>
    void Param(string name, string value);

    /// <summary>Sets a tag, or removes it with null.</summary>
    void Tag(string name, string? value);
    void Link(ArtifactLink artifact);
    void End(Outcome outcome);
}
