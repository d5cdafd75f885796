using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Memopt.Hub.Tests;

/// <summary>A request as it came over the socket.</summary>
internal sealed record HubRequest(
    string Method,
    string Path,
    string Query,
    IReadOnlyDictionary<string, string> Headers,
    string Body
)
{
    public string? Header(string name) => Headers.GetValueOrDefault(name.ToLowerInvariant());

    /// <summary>The range asked for within a file of a size; the whole when none is.</summary>
    public (long From, long To) Range(long size)
    {
        if (Header("range") is not { } range)
            return (0, size - 1);
        var ends = range["bytes=".Length..].Split('-');
        return (
            long.Parse(ends[0], CultureInfo.InvariantCulture),
            ends[1] is "" ? size - 1 : Math.Min(size - 1, long.Parse(ends[1], CultureInfo.InvariantCulture))
        );
    }
}

/// <summary>What goes wrong with one answer.</summary>
/// <param name="Cut">Bytes of the body after which the fault strikes.</param>
internal sealed record Fault(FaultKind Kind, long Cut = 0, int RetryAfter = 1);

internal enum FaultKind
{
    Reset,
    Stall,
    Close,
    Status429,
    Status503,
    WrongETag,
    Whole,
    Shorten,
    Corrupt,
    Forbidden,
    Silent,
}

/// <summary>A file that the server has. Large ones are like LFS files: known by sha256, and given by storage on another
/// host.</summary>
internal sealed record Served(byte[] Bytes, bool Large)
{
    public string Sha256 { get; } = Convert.ToHexStringLower(SHA256.HashData(Bytes));

    public string GitSha1 { get; } =
        Convert.ToHexStringLower(SHA1.HashData([.. Encoding.ASCII.GetBytes($"blob {Bytes.Length}\0"), .. Bytes]));

    public string ETag => Large ? Sha256 : GitSha1;
}

/// <summary>A model hub on raw sockets, and storage on another port that it redirects to. Every answer can be spoilt
/// at an exact byte. It speaks Hugging Face's protocol, ModelScope's, and serves plain folders under /files/.
/// </summary>
internal sealed class HubServer : IDisposable
{
    public const string Commit = "0123456789abcdef0123456789abcdef01234567";
    private readonly TcpListener hub = new(IPAddress.Loopback, 0),
        storage = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource stop = new();
    private long sent,
        faults;

    public HubServer(string model = "org/model")
    {
        Model = model;
        hub.Start();
        storage.Start();
        Task.Run(() => AcceptAsync(hub, HubAsync));
        Task.Run(() => AcceptAsync(storage, StorageAsync));
    }

    public string Model { get; }

    /// <summary>Whether it is a data set that is served.</summary>
    public bool DataSet { get; set; }

    public ConcurrentDictionary<string, Served> Files { get; } = new();

    public Uri Url => new($"http://127.0.0.1:{((IPEndPoint)hub.LocalEndpoint).Port}/");

    /// <summary>By another name, so that it is another host.</summary>
    public Uri Storage => new($"http://localhost:{((IPEndPoint)storage.LocalEndpoint).Port}/");

    public ConcurrentQueue<HubRequest> HubRequests { get; } = new();

    public ConcurrentQueue<HubRequest> StorageRequests { get; } = new();

    /// <summary>Asked before each answer with bytes of a file; gives what goes wrong.</summary>
    public Func<HubRequest, Fault?> Spoil { get; set; } = _ => null;

    /// <summary>Asked before the hub answers: the whole answer in place of its own, or null.</summary>
    public Func<HubRequest, (byte[] Body, string? Header)?> Instead { get; set; } = _ => null;

    /// <summary>Where the hub sends everybody instead of an answer.</summary>
    public string? Redirect { get; set; }

    /// <summary>Whether the hub answers without saying how long, and never ends.</summary>
    public Func<HubRequest, bool> Endless { get; set; } = _ => false;

    /// <summary>Token that the hub asks for.</summary>
    public string? Token { get; set; }

    /// <summary>Bytes a second for each connection.</summary>
    public long? Rate { get; set; }

    /// <summary>Waited for before each answer with bytes of a file.</summary>
    public Func<HubRequest, Task> Gate { get; set; } = _ => Task.CompletedTask;

    /// <summary>Bytes of files, of all that it sends, after which it holds still until there may be more.</summary>
    public long Most { get; set; } = long.MaxValue;

    public bool ETags { get; set; } = true;

    public string Head { get; set; } = Commit;

    /// <summary>Bytes of files put on the wire.</summary>
    public long Sent => Interlocked.Read(ref sent);

    public long Faults => Interlocked.Read(ref faults);

    /// <summary>A small model: config, tokenizer, weights of a size in so many shards, and things that must not be
    /// fetched.</summary>
    public HubServer WithModel(int shards, int bytes, int seed = 1)
    {
        var random = new Random(seed);
        void Text(string name, string text) => Files[name] = new(Encoding.UTF8.GetBytes(text), Large: false);
        Text("config.json", "{ \"model_type\": \"llama\" }");
        Text("generation_config.json", "{}");
        Text("tokenizer.json", "{ \"version\": \"1.0\", \"text\": \"grüße\" }");
        Text("README.md", "# A model");
        Text("modeling_custom.py", "raise SystemExit");
        Text("onnx/model.onnx", "not this");
        Files["pytorch_model.bin"] = new([.. "\x80pickle"u8], Large: true);
        var map = new Dictionary<string, string>();
        for (var shard = 0; shard < shards; shard++)
        {
            var name = shards == 1 ? "model.safetensors" : $"model-{shard + 1:D5}-of-{shards:D5}.safetensors";
            var content = new byte[bytes];
            random.NextBytes(content);
            Files[name] = new(content, Large: true);
            map[$"weight.{shard}"] = name;
        }
        if (shards > 1)
            Text("model.safetensors.index.json", JsonSerializer.Serialize(new { weight_map = map }));
        return this;
    }

    /// <summary>Names that a pull has to bring.</summary>
    public IEnumerable<string> Needed =>
        Files
            .Keys.Where(name =>
                !name.Contains('/')
                && (
                    name.EndsWith(".json", StringComparison.Ordinal)
                    || name.EndsWith(".safetensors", StringComparison.Ordinal)
                )
            )
            .Order(StringComparer.Ordinal);

    /// <summary>All files as the hub lists them.</summary>
    public byte[] Listing() => JsonSerializer.SerializeToUtf8Bytes(Files.Keys.Select(Entry));

    public void Dispose()
    {
        stop.Cancel();
        hub.Stop();
        storage.Stop();
    }

    private async Task AcceptAsync(TcpListener listener, Func<HubRequest, Connection, Task> answer)
    {
        while (!stop.IsCancellationRequested)
        {
            var socket = await listener.AcceptSocketAsync(stop.Token);
            socket.SendBufferSize = 128 << 10;
            socket.NoDelay = true;
            _ = Task.Run(async () =>
            {
                using var connection = new Connection(socket);
                try
                {
                    while (await connection.ReadAsync(stop.Token) is { } request)
                        await answer(request, connection);
                }
                catch (Exception e)
                    when (e is SocketException or IOException or OperationCanceledException or ObjectDisposedException)
                {
                    // The client went, or the fault was to leave it.
                }
            });
        }
    }

    private async Task HubAsync(HubRequest request, Connection to)
    {
        HubRequests.Enqueue(request);
        if (Instead(request) is var (body, header))
        {
            await to.SendAsync(
                new([
                    .. Encoding.ASCII.GetBytes($"HTTP/1.1 200 OK\r\nContent-Length: {body.Length}\r\n{header}\r\n"),
                    .. body,
                ])
            );
            return;
        }
        if (Redirect is not null)
        {
            await to.TextAsync("302 Found", "", $"Location: {Redirect}");
            return;
        }
        if (Endless(request))
        {
            await to.SendAsync("HTTP/1.1 200 OK\r\n\r\n"u8.ToArray());
            var spaces = Enumerable.Repeat((byte)' ', 1 << 20).ToArray();
            while (!stop.IsCancellationRequested)
                await to.SendAsync(spaces); // until who asked has gone
        }
        if (
            Token is not null
            && request.Header("authorization") != $"Bearer {Token}"
            && request.Header("cookie") != $"m_session_id={Token}"
        )
        {
            await to.TextAsync("401 Unauthorized", "no", "X-Error-Message: who are you");
            return;
        }
        var api = DataSet ? $"/api/datasets/{Model}/" : $"/api/models/{Model}/";
        var resolve = $"/{(DataSet ? "datasets/" : "")}{Model}/resolve/{Head}/";
        if (request.Path.StartsWith(api + "revision/", StringComparison.Ordinal))
        {
            var revision = Uri.UnescapeDataString(request.Path[(api + "revision/").Length..]);
            if (revision is not ("main" or "refs/pr/1") && revision != Head)
                await to.TextAsync("404 Not Found", "{}", "X-Error-Code: RevisionNotFound");
            else
                await to.TextAsync(
                    "200 OK",
                    JsonSerializer.Serialize(
                        new
                        {
                            _id = "1",
                            id = Model,
                            sha = Head,
                            lastModified = "2026-01-01T00:00:00.000Z",
                            @private = false,
                            gated = false,
                            downloads = 0,
                            likes = 0,
                        }
                    )
                );
        }
        else if (request.Path.StartsWith($"{api}tree/{Head}", StringComparison.Ordinal))
        {
            // In two pages, as long listings come.
            var names = Files.Keys.Order(StringComparer.Ordinal).ToList();
            var second = request.Query.Contains("cursor=", StringComparison.Ordinal);
            var page = second ? names.Skip(names.Count / 2) : names.Take(names.Count / 2);
            var link = second ? null : $"Link: <{Url}{request.Path[1..]}{request.Query}&cursor=2>; rel=\"next\"";
            await to.TextAsync("200 OK", JsonSerializer.Serialize(page.Select(Entry)), link);
        }
        else if (request.Path == $"{api}paths-info/{Head}")
        {
            var asked = JsonDocument
                .Parse(request.Body)
                .RootElement.GetProperty("paths")
                .EnumerateArray()
                .Select(path => path.GetString()!);
            await to.TextAsync("200 OK", JsonSerializer.Serialize(asked.Where(Files.ContainsKey).Select(Entry)));
        }
        else if (
            request.Path.StartsWith(resolve, StringComparison.Ordinal)
            && Files.TryGetValue(Uri.UnescapeDataString(request.Path[resolve.Length..]), out var file)
        )
        {
            if (!file.Large)
                await FileAsync(request, file, file.ETag, to);
            else
                await to.TextAsync(
                    "302 Found",
                    "",
                    $"Location: {Storage}blob/{file.Sha256}?signature=x",
                    $"X-Linked-ETag: \"{file.ETag}\"",
                    $"X-Linked-Size: {file.Bytes.Length}",
                    $"X-Repo-Commit: {Head}"
                );
        }
        else if (request.Path == $"/api/v1/models/{Model}/repo/files")
        {
            var files = Files.Select(entry => new
            {
                Type = "blob",
                Path = entry.Key,
                Name = Path.GetFileName(entry.Key),
                Size = entry.Value.Bytes.Length,
                entry.Value.Sha256,
                Revision = Head,
            });
            await to.TextAsync(
                "200 OK",
                JsonSerializer.Serialize(
                    new
                    {
                        Code = 200,
                        Success = true,
                        Data = new { Files = files },
                    }
                )
            );
        }
        else if (
            request.Path == $"/api/v1/models/{Model}/repo"
            && Files.TryGetValue(Uri.UnescapeDataString(request.Query.Split("FilePath=")[1]), out var asked)
        )
        {
            await FileAsync(request, asked, null, to);
        }
        else if (
            request.Path.StartsWith("/files/", StringComparison.Ordinal)
            && Files.TryGetValue(Uri.UnescapeDataString(request.Path["/files/".Length..]), out var plain)
        )
        {
            await FileAsync(request, plain, ETags ? plain.Sha256[..16] : null, to);
        }
        else
        {
            await to.TextAsync("404 Not Found", "{}", "X-Error-Code: EntryNotFound");
        }
    }

    private async Task StorageAsync(HubRequest request, Connection to)
    {
        StorageRequests.Enqueue(request);
        var sha = request.Path.Split('/')[^1];
        var file = Files.Values.FirstOrDefault(file => file.Sha256 == sha);
        if (file is null)
            await to.TextAsync("404 Not Found", "");
        else
            await FileAsync(request, file, $"storage-{sha[..8]}", to);
    }

    private async Task FileAsync(HubRequest request, Served file, string? etag, Connection to)
    {
        await Gate(request);
        var fault = Spoil(request);
        if (fault is not null)
            Interlocked.Increment(ref faults);
        if (fault?.Kind is FaultKind.Status429 or FaultKind.Status503)
        {
            await to.TextAsync(
                fault.Kind == FaultKind.Status429 ? "429 Too Many Requests" : "503 Service Unavailable",
                "",
                $"Retry-After: {fault.RetryAfter}"
            );
            return;
        }
        if (fault?.Kind == FaultKind.Silent)
            await Task.Delay(Timeout.Infinite, stop.Token);
        if (fault?.Kind == FaultKind.Forbidden)
        {
            await to.TextAsync("403 Forbidden", "expired");
            return;
        }
        var size = file.Bytes.Length;
        var ranged = request.Header("range") is not null && fault?.Kind != FaultKind.Whole;
        var (from, end) = ranged ? request.Range(size) : (0, size - 1);
        if (fault?.Kind == FaultKind.Shorten)
            end--;
        var head = new StringBuilder(
            ranged
                ? $"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{end}/{size}\r\n"
                : "HTTP/1.1 200 OK\r\n"
        );
        head.Append($"Content-Length: {end - from + 1}\r\nAccept-Ranges: bytes\r\n");
        if (etag is not null)
            head.Append($"ETag: \"{(fault?.Kind == FaultKind.WrongETag ? "other" : etag)}\"\r\n");
        await to.SendAsync(Encoding.ASCII.GetBytes(head.Append("\r\n").ToString()));
        var cut = fault?.Kind switch
        {
            FaultKind.Reset => Math.Min(end + 1, from + fault.Cut),
            // Never all: the client would ask again on this connection, on which nothing more is read.
            FaultKind.Stall => Math.Min(end, from + fault.Cut),
            FaultKind.Close => end, // all but the last byte
            _ => end + 1,
        };
        var at = from;
        while (at < cut)
        {
            var count = (int)Math.Min(Rate is null ? 256 << 10 : 32 << 10, cut - at);
            ReadOnlyMemory<byte> piece = file.Bytes.AsMemory((int)at, count);
            if (fault?.Kind == FaultKind.Corrupt && fault.Cut >= at && fault.Cut < at + count)
            {
                var spoilt = piece.ToArray();
                spoilt[fault.Cut - at] ^= 1;
                piece = spoilt;
            }
            while (Sent >= Most)
                await Task.Delay(5, stop.Token);
            Interlocked.Add(ref sent, count); // before: who has the last byte may look at once
            await to.SendAsync(piece);
            at += count;
            if (Rate is { } rate)
                await Task.Delay(TimeSpan.FromSeconds(count / (double)rate), stop.Token);
        }
        switch (fault?.Kind)
        {
            case FaultKind.Stall:
                await Task.Delay(Timeout.Infinite, stop.Token);
                break;
            case FaultKind.Reset:
                to.Reset();
                break;
            case FaultKind.Close:
                to.Dispose();
                break;
        }
    }

    private object Entry(string path)
    {
        var file = Files[path];
        var last = new
        {
            id = Head,
            title = "a commit",
            date = "2026-01-01T00:00:00.000Z",
        };
        return file.Large
            ? new
            {
                type = "file",
                path,
                size = file.Bytes.Length,
                oid = file.GitSha1,
                lfs = new
                {
                    oid = file.Sha256,
                    size = file.Bytes.Length,
                    pointerSize = 134,
                },
                lastCommit = last,
            }
            : new
            {
                type = "file",
                path,
                size = file.Bytes.Length,
                oid = file.GitSha1,
                lastCommit = last,
            };
    }

    private sealed class Connection(Socket socket) : IDisposable
    {
        private readonly List<byte> pending = [];

        public async Task<HubRequest?> ReadAsync(CancellationToken stop)
        {
            var end = await UntilAsync(() => IndexOfBlankLine(), stop);
            if (end < 0)
                return null;
            var lines = Encoding.ASCII.GetString([.. pending.Take(end)]).Split("\r\n");
            pending.RemoveRange(0, end + 4);
            var headers = lines
                .Skip(1)
                .Select(line => line.Split(':', 2))
                .ToDictionary(pair => pair[0].ToLowerInvariant(), pair => pair[1].Trim());
            var length = int.Parse(headers.GetValueOrDefault("content-length", "0"), CultureInfo.InvariantCulture);
            await UntilAsync(() => pending.Count >= length ? 0 : -1, stop);
            var body = Encoding.UTF8.GetString([.. pending.Take(length)]);
            pending.RemoveRange(0, length);
            var target = lines[0].Split(' ')[1].Split('?', 2);
            return new(lines[0].Split(' ')[0], target[0], target.Length > 1 ? "?" + target[1] : "", headers, body);
        }

        public Task TextAsync(string status, string body, params string?[] headers)
        {
            var bytes = Encoding.UTF8.GetBytes(body);
            var head =
                $"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {bytes.Length}\r\n"
                + $"{string.Concat(headers.OfType<string>().Select(header => header + "\r\n"))}\r\n";
            return SendAsync(new([.. Encoding.ASCII.GetBytes(head), .. bytes]));
        }

        public async Task SendAsync(ReadOnlyMemory<byte> bytes)
        {
            while (bytes.Length > 0)
                bytes = bytes[await socket.SendAsync(bytes)..];
        }

        public void Reset()
        {
            socket.LingerState = new(true, 0);
            socket.Close();
        }

        public void Dispose() => socket.Dispose();

        private int IndexOfBlankLine()
        {
            for (var i = 3; i < pending.Count; i++)
            {
                if (pending[i] == '\n' && pending[i - 1] == '\r' && pending[i - 2] == '\n')
                    return i - 3;
            }
            return -1;
        }

        private async Task<int> UntilAsync(Func<int> found, CancellationToken stop)
        {
            var buffer = new byte[8192];
            while (true)
            {
                if (found() is >= 0 and var at)
                    return at;
                var count = await socket.ReceiveAsync(buffer, stop);
                if (count == 0)
                    return -1;
                pending.AddRange(buffer.AsSpan(0, count));
            }
        }
    }
}
