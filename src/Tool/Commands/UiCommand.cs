using System.CommandLine;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Commands.Runs;
using Memopt.Tool.Server;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>ui</c>: a page on past and running trainings, until it is stopped.</summary>
internal static class UiCommand
{
    public static Command Create()
    {
        var port = Shell.NumberOption(
            "--port",
            "Port to listen on; 0 takes any that is free.",
            5080,
            "from 0 to 65535",
            number => number is >= 0 and <= 65535
        );
        var host = new Option<string>("--host")
        {
            Description =
                "Address to listen on, such as 0.0.0.0 for all; whoever is not on this machine needs the token.",
            DefaultValueFactory = _ => "localhost",
        };
        var stdin = new Option<bool>("--token-stdin")
        {
            Description =
                "Read from standard input what a caller must show; made up and printed when needed and left out.",
        };
        // Kept for those who have it in scripts; other users of the machine see a program's arguments.
        var token = new Option<string?>("--token") { Hidden = true };
        var open = new Option<bool>("--open") { Description = "Open the page in the browser." };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "ui",
            "A page on past and running trainings: curves, memory, comparison. Ctrl+C ends it.\n\nExample:\n  "
                + "dotnet memopt ui\n  http://127.0.0.1:5080/"
        )
        {
            store,
            port,
            host,
            stdin,
            token,
            open,
            json,
        };
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var address = Address(parsed.GetValue(host)!);
                            var loopback = IPAddress.IsLoopback(address);
                            if (parsed.GetValue(token) is not null)
                                Shell.Tell(
                                    "warning: other users of this machine can read --token in the list of "
                                        + "processes; next: printf %s \"$TOKEN\" | dotnet memopt ui --token-stdin"
                                );
                            var given = parsed.GetValue(stdin) ? Console.In.ReadLine() ?? "" : parsed.GetValue(token);
                            if (given is { Length: < 16 })
                                throw new UserFault(
                                    "This token could be guessed.",
                                    found: $"{given.Length} characters",
                                    next: "give at least 16; when --token-stdin is left out and a token is "
                                        + "needed, it is made"
                                );
                            using var runs = CurrentProject.Store(parsed.GetValue(store), create: true);
                            var options = new UiOptions
                            {
                                Store = runs,
                                Artifacts = CurrentProject.Artifacts(parsed.GetValue(store)),
                                Address = address,
                                Port = parsed.GetValue(port),
                                Token = given ?? (loopback ? null : UiServer.NewToken()),
                            };
                            Serve(options, parsed.GetValue(open), parsed.GetValue(json), stop).GetAwaiter().GetResult();
                            return 0;
                        }
                    )
                )
        );
        return command;
    }

    private static async Task Serve(UiOptions options, bool open, bool json, CancellationToken stop)
    {
        await using var app = UiServer.Build(options);
        try
        {
            await app.StartAsync(CancellationToken.None);
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            throw new UserFault(
                $"{options.Address}:{options.Port} cannot be listened on.",
                found: (e.InnerException ?? e).Message,
                next: "dotnet memopt ui --port 0 takes a port that is free"
            )
            {
                Failed = true,
            };
        }
        var port = new Uri(app.Urls.First()).Port;
        // 0.0.0.0 is no address that one could open.
        var name =
            options.Address.Equals(IPAddress.Any) || options.Address.Equals(IPAddress.IPv6Any) ? Environment.MachineName
            : options.Address.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{options.Address}]"
            : options.Address.ToString();
        var url =
            $"http://{name}:{port}/{(options.Token is null ? "" : $"?token={Uri.EscapeDataString(options.Token)}")}";
        if (json)
            Shell.Print(
                new
                {
                    url,
                    port,
                    token = options.Token,
                }
            );
        else
            Console.Out.WriteLine(url);
        await Console.Out.FlushAsync(CancellationToken.None);
        if (open)
            Open(url);
        var stopped = new TaskCompletionSource();
        await using (stop.Register(stopped.SetResult))
            await stopped.Task;
        await app.StopAsync(CancellationToken.None);
    }

    private static IPAddress Address(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase) ? IPAddress.Loopback
        : IPAddress.TryParse(host, out var address) ? address
        : throw new UserFault(
            "--host takes an address.",
            found: host,
            next: "localhost, 0.0.0.0 for all, or the address of one network card"
        );

    private static void Open(string url)
    {
        try
        {
            var opener = OperatingSystem.IsWindows()
                ? null
                : ProgramPath.Find(OperatingSystem.IsMacOS() ? "open" : "xdg-open")
                    ?? throw new FileNotFoundException("xdg-open is not installed.");
            Process
                .Start(
                    opener is null
                        ? new ProcessStartInfo(url)
                        {
                            UseShellExecute = true,
                            WorkingDirectory = AppContext.BaseDirectory,
                        }
                        : new ProcessStartInfo(opener, [url])
                )
                ?.Dispose();
        }
        catch (Exception e)
            when (e is System.ComponentModel.Win32Exception or InvalidOperationException or FileNotFoundException)
        {
            Shell.Progress.WriteLine($"No browser could be started: {e.Message}");
        }
    }
}
