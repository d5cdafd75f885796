using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Recipes;

/// <summary>Writes a run into the record: its start, steps, events, artifacts and end. A fault of the record ends no
/// training.</summary>
internal sealed class RunRecorder : IDisposable
{
    private readonly FineTuneJob job;
    private readonly IRunWriter writer;
    private readonly IDisposable? recording;

    private RunRecorder(FineTuneJob job, ResumeState resume, IRunWriter writer)
    {
        (this.job, this.writer, RunId, Step) = (job, writer, resume.RunId, resume.Step);
        recording = job.Uploads?.Recording(RunId, writer, () => Step);
    }

    public string RunId { get; }

    /// <summary>Optimizer steps made so far: events carry it.</summary>
    public int Step { get; set; }

    /// <summary>Begins a run in the record, or continues it.</summary>
    public static RunRecorder Begin(
        FineTuneJob job,
        TrainingInputs inputs,
        ResumeState resume,
        MemoryPlan plan,
        IReadOnlyDictionary<string, string> hashes,
        int steps
    )
    {
        if (!job.World.IsMain)
        {
            job.Observer.RunStarted(resume.RunId);
            return new(job, resume, BestEffort.Unrecorded);
        }
        var tracking = job.Config.Settings.Tracking;
        void Faulted(string fault) => job.Observer.Stage(StageNames.Tracking, fault);
        var writer = job
            .Store.BeginBestEffort(
                Start(job, inputs, resume, plan, hashes, steps),
                resume.Step,
                Faulted,
                Path.Combine(job.Output, "unrecorded")
            )
            .WithTensorBoard(
                tracking.Tensorboard is { } board ? job.Config.Full(board) : null,
                resume.RunId,
                resume.Step,
                Faulted,
                job.Clock
            );
        var recorder = new RunRecorder(job, resume, writer);
        job.Observer.RunStarted(resume.RunId);
        foreach (var prior in job.PriorEvents)
            writer.Append(prior);
        recorder.RecordOrigin(resume, hashes, steps);
        return recorder;
    }

    public void Append(StepRow row) => writer.Append([row]);

    public void Append(MetricRow row) => writer.Append(row);

    public void Append(EvalRow row) => writer.Append(row);

    public void Event(string kind, string text) => writer.Append(new RunEvent(job.Clock.GetUtcNow(), Step, kind, text));

    /// <summary>Links an artifact to the run, and sends it where artifacts are sent.</summary>
    public void Link(ArtifactLink artifact)
    {
        writer.Link(artifact);
        job.Uploads?.Send(new(RunId, artifact));
    }

    /// <summary>Ends the run.</summary>
    public void End(RunStatus status, string? reason = null, IReadOnlyList<LedgerRow>? ledger = null)
    {
        var outcome = new Outcome(status, reason) { Ended = job.Clock.GetUtcNow() };
        writer.End(ledger is null ? outcome : outcome with { Ledger = ledger });
    }

    public void Dispose()
    {
        recording?.Dispose();
        writer.Dispose();
    }

    /// <summary>Where the run comes from: uncommitted changes, differences from the run that it repeats, the step that
    /// it resumes from.</summary>
    private void RecordOrigin(ResumeState resume, IReadOnlyDictionary<string, string> hashes, int steps)
    {
        var changes = job.Changes?.Invoke();
        if (changes is not null)
            Link(changes);
        foreach (var difference in Rerun.Differences(job, hashes, changes?.Hash))
            Event("differs", difference);
        if (resume.Step > 0)
            Event("resume", $"goes on after step {resume.Step} of {steps}");
    }

    private static RunStart Start(
        FineTuneJob job,
        TrainingInputs inputs,
        ResumeState resume,
        MemoryPlan plan,
        IReadOnlyDictionary<string, string> hashes,
        int steps
    )
    {
        var data = inputs.Rows.Facts("data.train").Concat(inputs.Eval?.Facts("data.eval") ?? []);
        return new()
        {
            Id = resume.RunId,
            Experiment = job.Config.Settings.Tracking.Experiment,
            Started = job.Clock.GetUtcNow(),
            Config = job.Config.Json,
            Overrides = job.Overrides,
            Hashes = hashes,
            Environment = new Dictionary<string, string>(job.Environment.Concat(data))
            {
                ["plan"] = $"{plan.Rung}",
                [RunPlan.MicroBatchFact] = $"{plan.Rung.MicroBatch}",
            },
            GitCommit = job.GitCommit,
            GitDirty = job.GitDirty,
            Tags = job.Config.Settings.Tracking.Tags,
            Ledger = resume.Ledger ?? plan.Rows,
            TotalSteps = steps,
            Parent = job.Parent,
        };
    }
}
