namespace Memopt.Tracking;

/// <summary>Event files for TensorBoard, written beside a run's record as it goes.</summary>
public static class TensorBoard
{
    /// <summary>A writer that also puts what it is given into an event file in a folder of the run's id under
    /// <paramref name="folder"/>; the writer itself when that is null. Metrics keep their names, an evaluation's are
    /// <c>eval/loss</c> and so on; TensorBoard's numbers are 32-bit floats. Each call's values are in the file when it
    /// returns. A run that goes on opens a new file, which says that steps after <paramref name="fromStep"/> are made
    /// again. What cannot be written is reported once, waits for the next call, and ends nothing.
    /// </summary>
    public static IRunWriter WithTensorBoard(
        this IRunWriter run,
        string? folder,
        string id,
        int fromStep,
        Action<string> report,
        TimeProvider? clock = null
    ) =>
        folder is null
            ? run
            : new Board(
                run,
                new EventFile(Path.Combine(folder, id), fromStep + 1L, report, clock ?? TimeProvider.System)
            );

    private sealed class Board(IRunWriter inner, EventFile file) : IRunWriter
    {
        // The file first: it never throws, and a row whose record waits is not given to a writer again.
        public void Append(IReadOnlyList<StepRow> rows)
        {
            foreach (var row in rows)
                file.Scalars(row.Step, row.Metrics());
            inner.Append(rows);
        }

        public void Append(EvalRow row)
        {
            file.Scalars(row.Step, row.Values.Select(value => ("eval/" + value.Key, value.Value)));
            inner.Append(row);
        }

        public void Append(MetricRow row)
        {
            file.Scalars(row.Step, row.Values.Select(value => (value.Key, value.Value)), row.Time);
            inner.Append(row);
        }

        public void Append(RunEvent happened) => inner.Append(happened);

        public void Param(string name, string value) => inner.Param(name, value);

        public void Tag(string name, string? value) => inner.Tag(name, value);

        public void Link(ArtifactLink artifact) => inner.Link(artifact);

        public void End(Outcome outcome) => inner.End(outcome);

        public void Dispose()
        {
            file.Dispose();
            inner.Dispose();
        }
    }
}
