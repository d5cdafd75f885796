using System.CommandLine;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Server;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>ui</c>: a page on past and running trainings, until it is stopped.</summary>
internal sealed class UiCommand
{
    private readonly Option<int> port = Shell.NumberOption(
        "--port",
        "Port to listen on; 0 takes a free one.",
        5080,
        "from 0 to 65535",
        number => number is >= 0 and <= 65535
    );
    private readonly Option<string> host = new("--host")
    {
        Description = "Address to listen on, 0.0.0.0 for all. Other machines need the token.",
        DefaultValueFactory = _ => "localhost",
    };
    private readonly Option<bool> stdin = new("--token-stdin")
    {
        Description = "Read the token from standard input; otherwise a needed token is generated and printed.",
    };

    // Kept for those who have it in scripts; other users of the machine see a program's arguments.
    private readonly Option<string?> token = new("--token") { Hidden = true };
    private readonly Option<bool> open = new("--open") { Description = "Open the page in the browser." };
    private readonly Option<string?> store = RunsCommand.StoreOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new UiCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "ui",
            "Serve a page on past and running trainings: curves, memory, comparison. Ctrl+C ends it.\n\nExample:\n  "
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
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var address = Address(parsed.GetValue(host)!);
        var given = GivenToken(parsed);
        using var runs = CurrentProject.Store(parsed.GetValue(store), create: true);
        var options = new UiOptions
        {
            Store = runs,
            Artifacts = CurrentProject.Artifacts(parsed.GetValue(store)),
            Address = address,
            Port = parsed.GetValue(port),
            Token = given ?? (IPAddress.IsLoopback(address) ? null : UiServer.NewToken()),
        };
        Serve(options, parsed.GetValue(open), parsed.GetValue(json), stop).GetAwaiter().GetResult();
        return 0;
    }

    private static IPAddress Address(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase) ? IPAddress.Loopback
        : IPAddress.TryParse(host, out var address) ? address
        : throw new UserFault(
            "--host takes an address.",
            found: host,
            next: "localhost, 0.0.0.0 for all, or the address of one network card"
        );

    /// <summary>The token that the caller chose; null when a token is made where one is needed.</summary>
    private string? GivenToken(ParseResult parsed)
    {
        if (parsed.GetValue(token) is not null)
            Shell.Tell(
                "warning: other users of this machine can read --token in the list of "
                    + "processes; next: printf %s \"$TOKEN\" | dotnet memopt ui --token-stdin"
            );
        var given = parsed.GetValue(stdin) ? Console.In.ReadLine() ?? "" : parsed.GetValue(token);
        return given is not { Length: < 16 }
            ? given
            : throw new UserFault(
                "This token could be guessed.",
                found: $"{given.Length} characters",
                next: "give at least 16; when --token-stdin is left out and a token is needed, it is made"
            );
    }

    private static async Task Serve(UiOptions options, bool open, bool json, CancellationToken stop)
    {
        await using var app = await UiServer.Start(options);
        var port = new Uri(app.Urls.First()).Port;
        var url = Url(options, port);
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

    private static string Url(UiOptions options, int port)
    {
        // 0.0.0.0 is no address that one could open.
        var name =
            options.Address.Equals(IPAddress.Any) || options.Address.Equals(IPAddress.IPv6Any) ? Environment.MachineName
            : options.Address.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{options.Address}]"
            : options.Address.ToString();
        return $"http://{name}:{port}/{(options.Token is null ? "" : $"?token={Uri.EscapeDataString(options.Token)}")}";
    }

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
