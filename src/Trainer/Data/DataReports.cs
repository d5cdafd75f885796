namespace Memopt.Trainer.Data;

/// <summary>Receives the progress while data is read; from several threads, one at a time.</summary>
/// <param name="Note">Something that a user may want to know.</param>
/// <param name="Progress">Bytes of the source that are done, of all.</param>
internal sealed record DataReports(Action<string> Note, Action<long, long> Progress);
