using System.Diagnostics;
using System.Text;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Recipes;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>Keeps what a training prints in the log of its run, a log for each rank, each line with its time (UTC) and
/// without secrets; steps as when piped, one every few seconds. A log that cannot be written ends nothing.
/// </summary>
internal sealed class RunLog(ITrainingObserver shown, LiteRunStore store, int rank = 0) : ITrainingObserver, IDisposable
{
    private readonly Stopwatch sinceLine = Stopwatch.StartNew();
    private readonly StringBuilder early = new();
    private StreamWriter? file;
    private bool begun;

    public void RunStarted(string runId)
    {
        shown.RunStarted(runId);
        begun = true;
        Try(() =>
        {
            file = store.AppendLog(runId, rank);
            file.Write(early);
        });
    }

    public void Stage(string name, string text)
    {
        shown.Stage(name, text);
        Line($"{name.PadRight(12)} {text}");
    }

    public void Progress(string name, long done, long total)
    {
        shown.Progress(name, done, total);
        if (done == total || sinceLine.Elapsed.TotalSeconds >= 5)
            Line($"{name.PadRight(12)} {done:N0} / {total:N0}");
    }

    public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured)
    {
        shown.Ledger(rows, measured);
        using var text = new StringWriter();
        var console = AnsiConsole.Create(
            new AnsiConsoleSettings { Out = new AnsiConsoleOutput(text), Ansi = AnsiSupport.No }
        );
        console.Profile.Width = 160;
        console.Write(LedgerTable.Of(rows, measured));
        foreach (
            var line in text.ToString()
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Where(line => !string.IsNullOrWhiteSpace(line))
        )
            Line(line.TrimEnd());
    }

    public void Step(StepRow row, int total)
    {
        shown.Step(row, total);
        if (row.Step == 1 || row.Step == total || sinceLine.Elapsed.TotalSeconds >= 5)
            Line(ConsoleObserver.StepLine(row, total));
    }

    public void Dispose() => Try(() => file?.Dispose());

    private void Line(string text)
    {
        sinceLine.Restart();
        // On one line: a text of several could put one there that looks like the log's own.
        var line =
            $"{TimeProvider.System.GetUtcNow():u}  "
            + $"{TerminalText.Visible(Secrets.Redact(text)).ReplaceLineEndings("␊")}\n";
        if (!begun)
            early.Append(line);
        else
            Try(() => file?.Write(line));
    }

    private void Try(Action write)
    {
        try
        {
            write();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            file = null;
        }
    }
}
