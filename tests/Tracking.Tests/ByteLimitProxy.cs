using System.Net;
using System.Net.Sockets;

namespace Memopt.Tracking.Tests;

/// <summary>Stands before a server and lets so many bytes through, in both directions together, and then none until
/// more are let: what is larger cannot end meanwhile, however slowly a test looks. A connection that one side leaves is
/// closed on the other.
/// </summary>
internal sealed class ByteLimitProxy : IDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly object gate = new();
    private readonly int server;
    private long allowed,
        passed;

    public ByteLimitProxy(int server, long bytes)
    {
        (this.server, allowed) = (server, bytes);
        listener.Start();
        new Thread(Listen) { IsBackground = true }.Start();
    }

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    /// <summary>Whether all that is let through has passed.</summary>
    public bool AtLimit
    {
        get
        {
            lock (gate)
                return passed >= allowed;
        }
    }

    /// <summary>Bytes that went through, in both directions.</summary>
    public long Passed
    {
        get
        {
            lock (gate)
                return passed;
        }
    }

    /// <summary>Lets more through.</summary>
    public void Allow(long bytes)
    {
        lock (gate)
        {
            allowed = bytes == long.MaxValue ? bytes : allowed + bytes;
            Monitor.PulseAll(gate);
        }
    }

    public void Dispose()
    {
        listener.Stop();
        Allow(long.MaxValue);
    }

    private void Listen()
    {
        try
        {
            while (true)
            {
                var client = listener.AcceptSocket();
                var far = new Socket(SocketType.Stream, ProtocolType.Tcp);
                try
                {
                    far.Connect(IPAddress.Loopback, server);
                }
                catch (SocketException)
                {
                    client.Dispose();
                    continue;
                }
                new Thread(() => Pass(client, far)) { IsBackground = true }.Start();
                new Thread(() => Pass(far, client)) { IsBackground = true }.Start();
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or InvalidOperationException) { }
    }

    private void Pass(Socket from, Socket to)
    {
        var buffer = new byte[64 << 10];
        try
        {
            while (from.Receive(buffer) is > 0 and var got)
            {
                var sent = 0;
                while (sent < got)
                {
                    int part;
                    lock (gate)
                    {
                        while (passed >= allowed)
                        {
                            // A side that is gone is seen here too: it holds nothing back that the other should know.
                            if (from.Poll(0, SelectMode.SelectRead) && from.Available == 0)
                                return;
                            Monitor.Wait(gate, 50);
                        }
                        part = (int)Math.Min(got - sent, allowed - passed);
                        passed += part;
                    }
                    to.Send(buffer, sent, part, SocketFlags.None);
                    sent += part;
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException) { }
        finally
        {
            from.Dispose();
            to.Dispose();
        }
    }
}
