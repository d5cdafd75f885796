namespace Memopt.Tracking;

/// <summary>Something that happened to a run and that no number tells: a step of the out-of-memory ladder, an upload, a
/// resume.</summary>
/// <param name="Time">When.</param>
/// <param name="Step">Steps that had been made.</param>
/// <param name="Kind">What sort, lower-case and short: differs for something in which a training that is repeated is
/// not the same, download, failed for a part of a sweep, memory, resume, tracking for records that were lost,
/// upload.</param>
/// <param name="Text">One sentence for people.</param>
public sealed record RunEvent(DateTimeOffset Time, int Step, string Kind, string Text);
