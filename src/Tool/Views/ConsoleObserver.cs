using System.Diagnostics;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Data;
using Memopt.Trainer.Recipes;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>Prints what passes in a fine-tune to standard error: a live line on a terminal, plain lines every few
/// seconds when piped. Any thread may tell it of something.
/// </summary>
internal sealed class ConsoleObserver : IRunView
{
    private readonly IAnsiConsole console = Shell.Progress;
    private readonly Stopwatch sinceLine = Stopwatch.StartNew();
    private readonly Stopwatch training = new();
    private int first;
    private readonly Lock gate = new();
    private bool open;

    /// <summary>Of the last step; null when there was none.</summary>
    public double? Loss { get; private set; }

    public void Stage(string name, string text)
    {
        using var one = gate.EnterScope();
        Close();
        console.MarkupLineInterpolated($"[bold]{name.PadRight(12)}[/] {Secrets.Redact(text)}");
    }

    public void Progress(string name, long done, long total)
    {
        using var one = gate.EnterScope();
        if (done == total || sinceLine.Elapsed.TotalSeconds >= (Console.IsErrorRedirected ? 5 : 0.2))
            Line($"{name.PadRight(12)} {done:N0} / {total:N0}", done == total);
    }

    public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured)
    {
        using var one = gate.EnterScope();
        Close();
        console.Write(LedgerTable.Of(rows, measured));
    }

    public void Step(StepRow row, int total)
    {
        using var one = gate.EnterScope();
        Loss = row.Loss;
        if (!training.IsRunning)
        {
            training.Start();
            first = row.Step;
        }
        var last = row.Step == total;
        if (!last && row.Step != first && sinceLine.Elapsed.TotalSeconds < (Console.IsErrorRedirected ? 5 : 0.2))
            return;
        var seconds = training.Elapsed.TotalSeconds / (row.Step - first) * (total - row.Step);
        var left = row.Step == first ? "" : $", {TimeSpan.FromSeconds(seconds):hh\\:mm\\:ss} left";
        Line(StepLine(row, total) + left, last);
    }

    public IPullWatcher Download(Action<string>? noted) => new PullProgress(noted);

    public void TrialStarted(int number, int total, string settings) =>
        Stage(StageNames.Sweep, $"{number} of {total}: {settings}");

    public void TrialEnded(TrialEnd end)
    {
        if (end.Reason is not null)
            Stage(StageNames.Failed, end.Reason);
    }

    public IRunView ForTrial(int number) => new ConsoleObserver();

    public void Finished(Result result, string judged) =>
        Stage(
            result.Status == RunStatus.Finished ? StageNames.Finished : StageNames.Stopped,
            FinishedLine(result, judged)
        );

    /// <summary>The end of a training in words.</summary>
    public static string FinishedLine(Result result, string judged) =>
        $"run {result.RunId}{(judged.Length == 0 ? "" : $": {judged}")}; see it with: dotnet memopt runs show "
        + result.RunId;

    /// <summary>Prints what passes while data is read.</summary>
    public DataReports DataReports() =>
        new(note => Stage("data", note), (done, total) => Progress("tokenizing, MiB", done >> 20, total >> 20));

    public static string StepLine(StepRow row, int total) =>
        $"step {row.Step} / {total}  loss {row.Loss:F4}  lr {row.LearningRate:G3}  norm {row.GradNorm:F3}  "
        + $"{row.TokensPerSecond:N0} tokens/s  {row.MemoryBytes / 1048576.0:N0} MiB";

    private void Line(string text, bool last)
    {
        sinceLine.Restart();
        if (Console.IsErrorRedirected)
        {
            console.WriteLine(text);
            return;
        }
        var width = Math.Max(0, Console.WindowWidth - 1);
        console.Profile.Out.Writer.Write(
            "\r" + TerminalText.Visible(text).ReplaceLineEndings(" ").PadRight(width)[..width]
        );
        open = true;
        if (last)
            Close();
    }

    private void Close()
    {
        if (open)
            Console.Error.WriteLine();
        open = false;
    }
}
