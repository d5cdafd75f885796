using System.Diagnostics;
using System.Net.Sockets;

namespace Memopt.Tool.Launch;

/// <summary>A rank's connection to the launcher on its host: tells that the rank lives, hears that it is to stop. When
/// the launcher ends, however it ends, the rank ends.</summary>
internal sealed class RankLink : IDisposable
{
    /// <summary>The variable that holds the launcher's socket.</summary>
    public const string Variable = "MEMOPT_LAUNCHER";

    private readonly Socket socket;
    private readonly StreamWriter writer;
    private readonly Timer heartbeat;
    private readonly Lock gate = new();
    private volatile bool left;

    private RankLink(Socket socket, int rank, Action stop)
    {
        this.socket = socket;
        writer = new StreamWriter(new NetworkStream(socket)) { AutoFlush = true };
        Send($"{RankMessage.Hello} {rank} {Environment.ProcessId}");
        heartbeat = new Timer(_ => Send(RankMessage.Alive), null, RankMessage.Heartbeat, RankMessage.Heartbeat);
        new Thread(() => Listen(stop)) { IsBackground = true, Name = "launcher" }.Start();
    }

    /// <summary>The link of this process; null where no launcher of memopt started it.</summary>
    public static RankLink? Current { get; private set; }

    /// <summary>Connects to the launcher that started this process, if one did.</summary>
    /// <param name="stop">Called when the launcher asks for a stop.</param>
    public static void Connect(Action stop)
    {
        if (Environment.GetEnvironmentVariable(Variable) is not { Length: > 0 } path)
            return;
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException)
        {
            socket.Dispose();
            Process.GetCurrentProcess().Kill(); // the launcher is gone already
            return;
        }
        var rank = Trainer.Runs.ProcessEnvironment.RankPlace()?.Rank ?? 0;
        Current = new(socket, rank, stop);
    }

    /// <summary>Tells that this rank ends of itself, with a result or a reported fault: nothing is to be started
    /// again.</summary>
    public void Leave()
    {
        left = true;
        Send(RankMessage.Leave);
    }

    public void Dispose()
    {
        heartbeat.Dispose();
        writer.Dispose();
        socket.Dispose();
    }

    private void Send(string line)
    {
        try
        {
            lock (gate)
                writer.WriteLine(line);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // The listening thread finds the end of the connection.
        }
    }

    private void Listen(Action stop)
    {
        try
        {
            using var reader = new StreamReader(new NetworkStream(socket));
            while (reader.ReadLine() is { } line)
            {
                if (line == RankMessage.Stop)
                    stop();
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // As at the end of the connection.
        }
        if (!left)
            Process.GetCurrentProcess().Kill();
    }
}
