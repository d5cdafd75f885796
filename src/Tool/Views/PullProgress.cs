using System.Collections.Concurrent;
using System.Diagnostics;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>A download on standard error: a bar for each file on a terminal, a line every few seconds when
/// piped.</summary>
internal sealed class PullProgress : IPullWatcher, IDisposable
{
    private static readonly TimeSpan between = TimeSpan.FromSeconds(5);
    private readonly ConcurrentDictionary<string, (long Done, long Size, long Resumed)> files = new();
    private readonly ConcurrentDictionary<string, bool> finished = new();
    private readonly ConcurrentQueue<string> notes = new();
    private readonly Stopwatch watch = Stopwatch.StartNew();
    private readonly CancellationTokenSource ended = new();
    private readonly Task bars;
    private readonly Action<string>? noted;
    private TimeSpan last;
    private int writing;

    /// <param name="noted">Receives each note, too.</param>
    public PullProgress(Action<string>? noted = null)
    {
        this.noted = noted;
        bars = Console.IsErrorRedirected ? Task.CompletedTask : Task.Run(BarsAsync);
    }

    public void Note(string text)
    {
        text = Secrets.Redact(text);
        notes.Enqueue(text);
        noted?.Invoke(text);
        if (Console.IsErrorRedirected)
            Notes();
    }

    public void Advance(string file, long done, long size, long resumed)
    {
        files[file] = (done, size, resumed);
        if (!Console.IsErrorRedirected)
            return;
        if (done == size)
        {
            if (!finished.TryAdd(file, true))
                return;
            var before =
                resumed == size && size > 0 ? ", was here"
                : resumed > 0 ? $", {LedgerTable.Size(resumed)} of it resumed"
                : "";
            Shell.Progress.WriteLine($"{file.PadRight(40)} {LedgerTable.Size(size)}{before}");
            return;
        }
        if (watch.Elapsed - last < between || Interlocked.Exchange(ref writing, 1) == 1)
            return;
        Line();
        Volatile.Write(ref writing, 0);
    }

    public void Dispose()
    {
        ended.Cancel();
        bars.GetAwaiter().GetResult();
        Notes();
        ended.Dispose();
    }

    /// <summary>All files in one line: how much, how fast, how long still.</summary>
    private void Line()
    {
        last = watch.Elapsed;
        var now = files.Values;
        var (done, size, resumed) = (
            now.Sum(file => file.Done),
            now.Sum(file => file.Size),
            now.Sum(file => file.Resumed)
        );
        var rate = (done - resumed) / Math.Max(1e-3, watch.Elapsed.TotalSeconds);
        var left = rate > 0 ? $"{TimeSpan.FromSeconds((size - done) / rate):hh\\:mm\\:ss} left" : "no byte yet";
        Shell.Progress.WriteLine(
            $"download     {LedgerTable.Size(done)} / {LedgerTable.Size(size)}  "
                + $"{LedgerTable.Size((long)rate)}/s, {left}"
                + $"{(resumed > 0 ? $", {LedgerTable.Size(resumed)} resumed" : "")}"
        );
    }

    private void Notes()
    {
        while (notes.TryDequeue(out var text))
            Shell.Progress.WriteLine(text);
    }

    private Task BarsAsync() =>
        Shell
            .Progress.Progress()
            .AutoClear(false)
            .HideCompleted(false)
            .Columns(
                new TaskDescriptionColumn { Alignment = Justify.Left },
                new ProgressBarColumn(),
                new PercentageColumn(),
                new DownloadedColumn(),
                new TransferSpeedColumn(),
                new RemainingTimeColumn()
            )
            .StartAsync(async context =>
            {
                var shown = new Dictionary<string, ProgressTask>();
                do
                {
                    await Task.WhenAny(Task.Delay(100, ended.Token)).ConfigureAwait(false);
                    foreach (var (name, (done, size, resumed)) in files)
                    {
                        if (!shown.TryGetValue(name, out var bar))
                            shown[name] = bar = context.AddTask(
                                Markup.Escape(
                                    resumed > 0 && resumed < size
                                        ? $"{name} ({LedgerTable.Size(resumed)} resumed)"
                                        : name
                                ),
                                maxValue: Math.Max(1, size)
                            );
                        bar.Value = size == 0 ? 1 : done;
                    }
                    while (notes.TryDequeue(out var text))
                        Shell.Progress.WriteLine(text);
                } while (!ended.IsCancellationRequested);
            });
}
