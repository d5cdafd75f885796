using Memopt.Build;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Views;

/// <summary>Writes a training's progress to standard error, a <see cref="ProgressRecord"/> a line:
/// <c>--progress json</c>. Any thread may report.</summary>
internal sealed class JsonObserver : IRunView
{
    // Between two records of one count: a step has one of its own.
    private const long Between = 1_000;

    private readonly Lock gate = new();
    private long last = -Between;

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
            if (done != total && Environment.TickCount64 - last < Between)
                return;
            last = Environment.TickCount64;
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
                Loss = row.Loss,
                LearningRate = row.LearningRate,
                GradNorm = row.GradNorm,
                TokensPerSecond = row.TokensPerSecond,
                MemoryBytes = row.MemoryBytes,
                Text = ConsoleObserver.StepLine(row, total),
            }
        );
    }

    public IPullWatcher Download(Action<string> noted) => new JsonDownload(this, noted);

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

    private void Write(ProgressRecord record)
    {
        record.Time = $"{TimeProvider.System.GetUtcNow():O}";
        var line = record.Line();
        lock (gate)
            Console.Error.WriteLine(line);
    }

    private sealed class JsonDownload(JsonObserver view, Action<string> noted) : IPullWatcher
    {
        public void Note(string text)
        {
            noted(text);
            view.Stage(StageNames.Download, text);
        }

        public void Advance(string file, long done, long size, long resumed) => view.Progress(file, done, size);
    }
}
