using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace Memopt.Tool.Cli;

/// <summary>Ctrl+C and the signals that ask a process to end. After the first signal a command ends by itself, after
/// its step and with a checkpoint. A signal that comes three seconds later or more ends the process at once; sooner
/// ones count as the first, since a shell and a cancelled build both send one. The end of the build that started the
/// tool, of any process of <c>MEMOPT_BUILD</c>, counts as a signal, and so does the end of the terminal (SIGHUP), which
/// <c>nohup</c> ignores as always.
/// </summary>
internal sealed class Interrupt : IDisposable
{
    private static readonly TimeSpan oneRequest = TimeSpan.FromSeconds(3);

    private readonly CancellationTokenSource stop = new();
    private readonly PosixSignalRegistration[] registrations;
    private readonly Stopwatch sinceFirst = new();

    public Interrupt()
    {
        registrations =
        [
            .. new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP }.Select(signal =>
                PosixSignalRegistration.Create(signal, Asked)
            ),
        ];
        foreach (var build in (Environment.GetEnvironmentVariable("MEMOPT_BUILD") ?? "").Split(','))
            if (int.TryParse(build, CultureInfo.InvariantCulture, out var id))
                _ = Outlive(id);
    }

    public CancellationToken Token => stop.Token;

    /// <summary>Asks for the end as a signal does.</summary>
    public void Request() => _ = Task.Run(stop.Cancel);

    public void Dispose()
    {
        foreach (var registration in registrations)
            registration.Dispose();
        stop.Dispose();
    }

    private async Task Outlive(int build)
    {
        try
        {
            using var process = Process.GetProcessById(build);
            await process.WaitForExitAsync().ConfigureAwait(false);
        }
        catch (ArgumentException)
        {
            // It has ended already.
        }
        catch (Exception e) when (e is InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            return; // a process that may not be waited for
        }
        await stop.CancelAsync().ConfigureAwait(false);
    }

    private void Asked(PosixSignalContext context)
    {
        context.Cancel = !sinceFirst.IsRunning || sinceFirst.Elapsed < oneRequest;
        sinceFirst.Start();
        if (context.Cancel)
            _ = Task.Run(stop.Cancel); // callbacks of the stop may take time
    }
}
