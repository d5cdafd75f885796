using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Memopt.Core;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Launch;

/// <summary>Starts the ranks of a run on this host: the same command, once a rank. When one dies or freezes, ends all
/// and starts them again; the run resumes from its last checkpoint.</summary>
/// <param name="ranks">How many.</param>
/// <param name="nccl">Whether they communicate by NCCL; else mpirun starts them.</param>
/// <param name="restarts">How often they are started again.</param>
/// <param name="report">Receives what happens, in words.</param>
internal sealed class RankLauncher(int ranks, bool nccl, int restarts, Action<string> report)
{
    // A rank says every half second that it lives. A machine that swaps is slower than that.
    private static readonly TimeSpan frozen = TimeSpan.FromSeconds(7);

    // After a rank has reported a fault, the others wait for it in vain.
    private static readonly TimeSpan afterFault = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan look = TimeSpan.FromMilliseconds(100);

    private readonly string runId = Trainer.Runs.RunLauncher.NewId(TimeProvider.System);

    /// <summary>Runs until the ranks have ended.</summary>
    /// <param name="arguments">Of this command.</param>
    /// <param name="stop">Asks all ranks to end after their step.</param>
    /// <returns>The exit code of the main rank.</returns>
    public int Run(IReadOnlyList<string> arguments, CancellationToken stop)
    {
        for (var again = 0; ; again++)
        {
            using var server = new RankServer(TimeProvider.System);
            var processes = Start(server, arguments);
            var (code, lost) = Watch(server, processes, stop);
            End(server, processes);
            if (lost is not { } found)
                return code;
            if (stop.IsCancellationRequested)
                return 130;
            if (again == restarts)
                throw new UserFault(
                    $"Rank {found.Rank} {found.How}.",
                    found: restarts == 0 ? "distributed.restarts is 0" : $"it is restart {restarts} of {restarts}",
                    next: "run again: the run resumes from its last checkpoint; the log of each rank is beside the "
                        + "run's"
                )
                {
                    Failed = true,
                };
            report(
                $"rank {found.Rank} {found.How}; all ranks start again ({again + 1} of {restarts}) and resume from the "
                    + "last checkpoint"
            );
        }
    }

    /// <summary>Waits until all ranks have ended, or one died or froze.</summary>
    private static (int Code, (int Rank, string How)? Lost) Watch(
        RankServer server,
        IReadOnlyList<Process> processes,
        CancellationToken stop
    )
    {
        var (asked, faulted) = (false, (long?)null);
        while (true)
        {
            if (stop.IsCancellationRequested && !asked)
                server.Stop();
            asked = stop.IsCancellationRequested;
            var lost = server.Lost(frozen);
            var ended = processes.Where(process => process.HasExited).ToList();
            if (ended.Count == processes.Count && (lost is null || server.Leaving))
            {
                var codes = processes.Select(process => process.ExitCode).ToList();
                return (codes.Find(code => code != 0), null);
            }
            if (lost is not null && !server.Leaving && faulted is null)
                return (1, lost);
            // A rank that has reported a fault ends; it is not started again.
            var first = ended.Find(process => process.ExitCode != 0);
            if (first is not null || lost is not null)
            {
                faulted ??= Stopwatch.GetTimestamp();
                if (Stopwatch.GetElapsedTime(faulted.Value) > afterFault)
                    return (first?.ExitCode ?? 1, null);
            }
            Thread.Sleep(look);
        }
    }

    private List<Process> Start(RankServer server, IReadOnlyList<string> arguments)
    {
        string[] tool =
        [
            Environment.ProcessPath!,
            .. Path.GetFileNameWithoutExtension(Environment.ProcessPath!) == "dotnet"
                ? new[] { "exec", typeof(RankLauncher).Assembly.Location }
                : [],
            .. arguments,
        ];
        if (!nccl)
            return [Start(server, [.. MpiRun.Command(ranks), .. tool], [])];
        var port = FreePort();
        return
        [
            .. Enumerable
                .Range(0, ranks)
                .Select(rank =>
                    Start(
                        server,
                        tool,
                        new()
                        {
                            ["RANK"] = $"{rank}",
                            ["WORLD_SIZE"] = $"{ranks}",
                            ["LOCAL_RANK"] = $"{rank}",
                            ["LOCAL_WORLD_SIZE"] = $"{ranks}",
                            ["NCCL_COMM_ID"] = $"127.0.0.1:{port}",
                        }
                    )
                ),
        ];
    }

    private Process Start(RankServer server, string[] command, Dictionary<string, string> variables)
    {
        // A session of its own: Ctrl+C on the terminal reaches the launcher alone, which asks all ranks to stop.
        if (OperatingSystem.IsLinux())
            command = ["setsid", .. command];
        var start = new ProcessStartInfo(command[0], command[1..]) { RedirectStandardInput = true };
        start.Environment[RankLink.Variable] = server.Path;
        start.Environment[ProcessEnvironment.RunIdVariable] = runId;
        foreach (var (name, value) in variables)
            start.Environment[name] = value;
        return Process.Start(start) ?? throw new UserFault($"{command[0]} cannot be started.");
    }

    /// <summary>Ends what is still there of the ranks, those that are frozen too.</summary>
    private static void End(RankServer server, List<Process> processes)
    {
        foreach (var pid in server.Alive)
        {
            try
            {
                using var rank = Process.GetProcessById(pid);
                rank.Kill();
            }
            catch (Exception e) when (e is ArgumentException or InvalidOperationException)
            {
                // It has ended.
            }
        }
        foreach (var process in processes)
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
            process.Dispose();
        }
    }

    private static int FreePort()
    {
        using var socket = new TcpListener(IPAddress.Loopback, 0);
        socket.Start();
        return ((IPEndPoint)socket.LocalEndpoint).Port;
    }
}
