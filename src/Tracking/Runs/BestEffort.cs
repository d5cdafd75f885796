namespace Memopt.Tracking;

/// <summary>For a training that must not end because its record cannot be kept.</summary>
public static class BestEffort
{
    /// <summary>A writer that records nothing: of the ranks that train together, one records the run.</summary>
    public static IRunWriter Unrecorded { get; } = new BestEffortWriter(null, _ => { });

    /// <summary>Begins a run whose writer never throws. What goes wrong is reported once, in words for people, and
    /// again when it is repaired. When the store cannot be written the run is recorded in a store in the folder
    /// <paramref name="instead"/>, from which <c>runs import</c> brings it home; when that cannot be written either, it
    /// is said that nothing is recorded.
    /// </summary>
    public static IRunWriter BeginBestEffort(
        this IRunStore store,
        RunStart start,
        int fromStep,
        Action<string> report,
        string? instead = null
    )
    {
        try
        {
            return new BestEffortWriter(store.Begin(start, fromStep), report);
        }
        catch (TrackingException e)
        {
            if (instead is null)
            {
                report($"{e.Message} The training goes on; the run is NOT recorded.");
                return new BestEffortWriter(null, report);
            }
            try
            {
                var writer = new LiteRunStore(instead).Begin(start, fromStep);
                report(
                    $"{e.Message} The training goes on; the run is recorded in {instead}. When the store is there "
                        + $"again: dotnet memopt runs import {instead}"
                );
                return new BestEffortWriter(writer, report);
            }
            catch (TrackingException second)
            {
                report($"{e.Message} {second.Message} The training goes on; the run is NOT recorded.");
                return new BestEffortWriter(null, report);
            }
        }
    }

    private sealed class BestEffortWriter(IRunWriter? inner, Action<string> report) : IRunWriter
    {
        private bool failing;

        public void Append(IReadOnlyList<StepRow> rows) => Try(writer => writer.Append(rows));

        public void Append(EvalRow row) => Try(writer => writer.Append(row));

        public void Append(MetricRow row) => Try(writer => writer.Append(row));

        public void Append(RunEvent happened) => Try(writer => writer.Append(happened));

        public void Param(string name, string value) => Try(writer => writer.Param(name, value));

        public void Tag(string name, string? value) => Try(writer => writer.Tag(name, value));

        public void Link(ArtifactLink artifact) => Try(writer => writer.Link(artifact));

        public void End(Outcome outcome) => Try(writer => writer.End(outcome));

        public void Dispose() => Try(writer => writer.Dispose());

        private void Try(Action<IRunWriter> call)
        {
            if (inner is null)
                return;
            try
            {
                call(inner);
                if (failing)
                    report("The run is recorded again, with all that waited.");
                failing = false;
            }
            catch (TrackingException e)
            {
                if (!failing)
                    report($"{e.Message} The training goes on.");
                failing = true;
            }
        }
    }
}
