using System.Net.Sockets;

namespace Memopt.Tool.Launch;

/// <summary>The launcher's end of the links: which ranks are there, and when each last said that it lives.</summary>
internal sealed class RankServer : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt-ranks").FullName;
    private readonly Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly Lock gate = new();
    private readonly List<Peer> peers = [];
    private readonly TimeProvider clock;

    public RankServer(TimeProvider clock)
    {
        this.clock = clock;
        listener.Bind(new UnixDomainSocketEndPoint(Path));
        listener.Listen();
        new Thread(Accept) { IsBackground = true, Name = "ranks" }.Start();
    }

    /// <summary>The path of the socket, for <see cref="RankLink.Variable"/>.</summary>
    public string Path => System.IO.Path.Combine(folder, "socket");

    /// <summary>Processes of the ranks that live, or are frozen.</summary>
    public IReadOnlyList<int> Alive
    {
        get
        {
            lock (gate)
                return [.. peers.Where(peer => !peer.Ended).Select(peer => peer.Pid)];
        }
    }

    /// <summary>Whether a rank said that it ends of itself: what becomes of the others then is no fault.</summary>
    public bool Leaving
    {
        get
        {
            lock (gate)
                return peers.Exists(peer => peer.Left);
        }
    }

    /// <summary>The first rank that died or froze, and how; null while all live.</summary>
    /// <param name="limit">A rank that says nothing for so long is frozen.</param>
    public (int Rank, string How)? Lost(TimeSpan limit)
    {
        lock (gate)
        {
            foreach (var peer in peers.Where(peer => !peer.Left))
            {
                if (peer.Ended)
                    return (peer.Rank, "died");
                if (clock.GetElapsedTime(peer.Seen) > limit)
                    return (peer.Rank, $"does not answer for {limit.TotalSeconds:N0} s");
            }
            return null;
        }
    }

    /// <summary>Asks every rank to end after its step.</summary>
    public void Stop()
    {
        lock (gate)
        {
            foreach (var peer in peers.Where(peer => !peer.Ended))
                peer.Send(RankMessage.Stop);
        }
    }

    public void Dispose()
    {
        listener.Dispose();
        lock (gate)
        {
            foreach (var peer in peers)
                peer.Dispose();
        }
        Directory.Delete(folder, recursive: true);
    }

    private void Accept()
    {
        while (true)
        {
            Socket socket;
            try
            {
                socket = listener.Accept();
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return; // disposed
            }
            new Thread(() => Serve(socket)) { IsBackground = true, Name = "rank" }.Start();
        }
    }

    private void Serve(Socket socket)
    {
        using var reader = new StreamReader(new NetworkStream(socket));
        Peer? peer = null;
        try
        {
            if (RankMessage.ReadHello(reader.ReadLine()) is not var (rank, pid))
                return;
            peer = new(rank, pid, socket) { Seen = clock.GetTimestamp() };
            lock (gate)
                peers.Add(peer);
            while (reader.ReadLine() is { } line)
            {
                lock (gate)
                {
                    peer.Seen = clock.GetTimestamp();
                    peer.Left |= line == RankMessage.Leave;
                }
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // As at the end of the connection.
        }
        finally
        {
            lock (gate)
                peer?.Ended = true;
        }
    }

    private sealed class Peer(int rank, int pid, Socket socket) : IDisposable
    {
        private readonly StreamWriter writer = new(new NetworkStream(socket)) { AutoFlush = true };

        public int Rank => rank;

        public int Pid => pid;

        public long Seen { get; set; }

        /// <summary>Whether it said that it ends of itself.</summary>
        public bool Left { get; set; }

        /// <summary>Whether the connection has ended.</summary>
        public bool Ended { get; set; }

        public void Send(string line)
        {
            try
            {
                writer.WriteLine(line);
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException)
            {
                // It has just ended.
            }
        }

        public void Dispose()
        {
            try
            {
                writer.Dispose();
            }
            catch (IOException)
            {
                // Nothing is buffered that anyone would read.
            }
            socket.Dispose();
        }
    }
}
