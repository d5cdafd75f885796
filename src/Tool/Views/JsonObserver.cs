using System.Collections.Concurrent;
using Memopt.Build;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Views;

/// <summary>Writes a command's progress to standard error, a <see cref="ProgressRecord"/> a line:
/// <c>--progress json</c>. Any thread may report.</summary>
/// <param name="trial">The sweep's combination that the records belong to, or null.</param>
internal sealed class JsonObserver(int? trial = null) : IRunView
{
    // Milliseconds between two records of one count: a step has one of its own.
    private const long Between = 1_000;

    // One for all views: their lines share standard error.
    private static readonly Lock gate = new();
    private readonly Dictionary<string, long> last = [];

    public double? Loss { get; private set; }

    public void RunStarted(string runId) =>
        Write(
            new()
            {
                Event = ProgressRecord.RunEvent,
                RunId = runId,
                Text = $"run {runId}",
            }
        );

    public void Stage(string name, string text) =>
        Write(
            new()
            {
                Event = ProgressRecord.StageEvent,
                Name = name,
                Text = Secrets.Redact(text),
            }
        );

    public void Progress(string name, long done, long total)
    {
        lock (gate)
        {
            var now = Environment.TickCount64;
            if (done != total && last.TryGetValue(name, out var before) && now - before < Between)
                return;
            last[name] = now;
        }
        Write(
            new()
            {
                Event = ProgressRecord.ProgressEvent,
                Name = name,
                Done = done,
                Total = total,
            }
        );
    }

    public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured) =>
        Write(
            new()
            {
                Event = ProgressRecord.LedgerEvent,
                Rows =
                [
                    .. rows.Select(row => new ProgressRow
                    {
                        Name = row.Name,
                        Place = row.Place,
                        Bytes = row.Bytes,
                        Measured = row.Measured,
                    }),
                ],
            }
        );

    public void Step(StepRow row, int total)
    {
        Loss = row.Loss;
        Write(
            new()
            {
                Event = ProgressRecord.StepEvent,
                Step = row.Step,
                Total = total,
                Loss = Finite(row.Loss),
                LearningRate = row.LearningRate,
                GradNorm = Finite(row.GradNorm),
                TokensPerSecond = Finite(row.TokensPerSecond),
                MemoryBytes = row.MemoryBytes,
                Text = ConsoleObserver.StepLine(row, total),
            }
        );
    }

    public IPullWatcher Download(Action<string>? noted) => new JsonDownload(this, noted);

    public void Finished(Result result, string judged) =>
        Write(
            new()
            {
                Event = ProgressRecord.FinishedEvent,
                RunId = result.RunId,
                Status = result.Status == RunStatus.Finished ? StageNames.Finished : StageNames.Stopped,
                Judged = judged.Length == 0 ? null : judged,
                Text = ConsoleObserver.FinishedLine(result, judged),
            }
        );

    public void Finished(CommandEnd end) =>
        Write(
            new()
            {
                Event = ProgressRecord.FinishedEvent,
                RunId = end.RunId,
                Status = end.Status,
                Loss = Finite(end.Loss),
                Accuracy = Finite(end.Accuracy),
                Judged = end.Judged,
                Text = end.Text,
            }
        );

    public void TrialStarted(int number, int total, string settings) =>
        Write(
            new()
            {
                Event = ProgressRecord.TrialEvent,
                Trial = number,
                Total = total,
                Status = "started",
                Text = Secrets.Redact(settings),
            }
        );

    public void TrialEnded(TrialEnd end) =>
        Write(
            new()
            {
                Event = ProgressRecord.TrialEvent,
                Trial = end.Number,
                Total = end.Total,
                Status = end.Status,
                RunId = end.RunId,
                Name = end.Metric,
                Value = Finite(end.Value),
                Text = end.Reason ?? $"{end.Number} of {end.Total}: {end.Status}",
            }
        );

    public IRunView ForTrial(int number) => new JsonObserver(number);

    /// <summary>JSON has no NaN and no infinity: they are left out.</summary>
    private static double? Finite(double? value) => value is { } number && double.IsFinite(number) ? number : null;

    private void Write(ProgressRecord record)
    {
        record.Trial ??= trial;
        record.Time = $"{TimeProvider.System.GetUtcNow():O}";
        var line = record.Line();
        lock (gate)
            Console.Error.WriteLine(line);
    }

    private sealed class JsonDownload(JsonObserver view, Action<string>? noted) : IPullWatcher
    {
        private readonly ConcurrentDictionary<string, bool> complete = new();

        public void Note(string text)
        {
            noted?.Invoke(text);
            view.Stage(StageNames.Download, text);
        }

        public void Advance(string file, long done, long size, long resumed)
        {
            // A file may report its end twice.
            if (done != size || complete.TryAdd(file, true))
                view.Progress(file, done, size);
        }
    }
}
