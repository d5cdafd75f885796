using System.Buffers;
using System.Net;
using System.Net.Http.Headers;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Fetches the parts of a file, several at once, until every byte is there. What it never does is to mix two
/// contents.</summary>
internal sealed class Downloader(HubHttp http, HubSettings settings, TimeProvider clock) : IDisposable
{
    private readonly SemaphoreSlim connections = new(settings.Connections);

    public async Task FetchAsync(RemoteFile file, PartFile part, Action report, CancellationToken stop)
    {
        using var session = new Transfer(file, part, report);
        var atOnce = new ParallelOptions { MaxDegreeOfParallelism = settings.Connections, CancellationToken = stop };
        await Parallel
            .ForEachAsync(
                Enumerable.Range(0, part.Parts),
                atOnce,
                async (index, token) =>
                {
                    if (part.Done(index) == part.Length(index))
                        return;
                    await connections.WaitAsync(token).ConfigureAwait(false);
                    try
                    {
                        while (part.Done(index) < part.Length(index))
                            await http.RetryAsync(file.Url, limited => PartAsync(session, index, limited), token)
                                .ConfigureAwait(false);
                    }
                    finally
                    {
                        connections.Release();
                    }
                }
            )
            .ConfigureAwait(false);
    }

    public void Dispose() => connections.Dispose();

    /// <summary>One attempt. Any new byte makes it a success, so that only attempts without one are counted.</summary>
    private async ValueTask PartAsync(Transfer session, int index, CancellationToken stop)
    {
        var before = session.Part.Done(index);
        try
        {
            await RangeAsync(session, index, stop).ConfigureAwait(false);
        }
        catch (Exception e)
            when (HubHttp.IsTransient(e) || (e is OperationCanceledException && !stop.IsCancellationRequested))
        {
            session.Location = null; // a signed address may have run out
            if (session.Part.Done(index) == before || stop.IsCancellationRequested)
                throw e is OperationCanceledException
                    ? new TransientException($"no byte for {settings.StallTimeout.TotalSeconds:N0} s")
                    : e;
            http.Retrying?.Invoke($"{session.File.Path}: {HubHttp.Reason(e)}; goes on");
        }
    }

    private async Task RangeAsync(Transfer session, int index, CancellationToken stop)
    {
        var (file, part) = (session.File, session.Part);
        // Where two requests may give two contents, one has to give all of it.
        var (from, to) = (
            part.Start(index) + (file.Resumable ? part.Done(index) : 0),
            part.Start(index) + part.Length(index) - 1
        );
        if (from > to)
            return;
        var range = from == 0 && to == file.Size - 1 ? null : new RangeHeaderValue(from, to);
        using var response = await AskAsync(session, range, stop).ConfigureAwait(false);
        session.Check(response);
        if (response.Status == HttpStatusCode.PartialContent)
        {
            var answered = response.Message.Content.Headers.ContentRange;
            if (response.Encoding is not null || answered?.From != from || (answered.Length ?? file.Size) != file.Size)
                throw new TransientException(
                    (
                        $"asked for bytes {from}-{to}/{file.Size}, got {answered?.ToString() ?? "nothing"} "
                        + $"{response.Encoding}"
                    ).TrimEnd()
                );
            session.Ranged();
            session.Location = response.Url;
            await CopyAsync(session, response, from, to + 1, stop).ConfigureAwait(false);
        }
        else if (
            response.Encoding is null
            && response.Message.Content.Headers.ContentLength is { } length
            && length != file.Size
        )
        {
            throw new TransientException($"the file has {length:N0} bytes, {file.Size:N0} were listed");
        }
        else if (range is null)
        {
            session.Location = response.Url;
            await CopyAsync(session, response, 0, file.Size, stop).ConfigureAwait(false);
        }
        else if (session.Unranged())
        {
            // The server gives the whole or nothing: one stream fills what all parts still miss; the others wait for
            // it.
            await session.Whole.WaitAsync(stop).ConfigureAwait(false);
            try
            {
                if (part.Done(index) < part.Length(index))
                    await CopyAsync(session, response, 0, file.Size, stop).ConfigureAwait(false);
            }
            finally
            {
                session.Whole.Release();
            }
        }
        else
        {
            throw new TransientException($"asked for bytes {from}-{to}, was sent the whole file");
        }
    }

    private async Task<HubResponse> AskAsync(Transfer session, RangeHeaderValue? range, CancellationToken stop)
    {
        var known = session.Location;
        try
        {
            return await http.GetAsync(known ?? session.File.Url, session.File.Login, range, stop)
                .ConfigureAwait(false);
        }
        catch (UserFault e) when (known is not null)
        {
            throw new TransientException($"the storage's address has run out ({e.Found})"); // the hub gives a new one
        }
    }

    private async Task CopyAsync(Transfer session, HubResponse response, long from, long end, CancellationToken stop)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(256 << 10);
        using var stall = new CancellationTokenSource(settings.StallTimeout, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(stop, stall.Token);
        try
        {
            using var body = await response.BodyAsync(either.Token).ConfigureAwait(false);
            while (from < end)
            {
                var count = await body.ReadAsync(
                        buffer.AsMemory(0, (int)Math.Min(buffer.Length, end - from)),
                        either.Token
                    )
                    .ConfigureAwait(false);
                if (count == 0)
                    throw new TransientException("the answer ended early");
                stall.CancelAfter(settings.StallTimeout);
                session.Store(from, buffer.AsSpan(0, count));
                from += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>What the requests for one file have learnt from each other.</summary>
    private sealed class Transfer(RemoteFile file, PartFile part, Action report) : IDisposable
    {
        private readonly Lock changing = new();
        private string? storage;
        private int whole,
            strange;

        public RemoteFile File => file;

        public PartFile Part => part;

        /// <summary>Where the hub redirected to, so that it is not asked for each range.</summary>
        public Uri? Location { get; set; }

        public SemaphoreSlim Whole { get; } = new(1);

        public void Ranged() => Interlocked.Exchange(ref whole, 0);

        /// <summary>Whether the server is by now known to ignore ranges.</summary>
        public bool Unranged() => Interlocked.Increment(ref whole) > 3;

        /// <summary>Refuses bytes of another content than was listed, or than other requests were given.</summary>
        public void Check(HubResponse response)
        {
            if (response.Status is HttpStatusCode.NotFound or HttpStatusCode.RequestedRangeNotSatisfiable)
                throw Strange($"HTTP {(int)response.Status}");
            var direct = response.Url.Authority == file.Url.Authority;
            if (
                file.Validator is { } expected
                && (response.LinkedETag ?? (direct ? response.ETag : null)) is { } found
                && found != expected
            )
                throw Strange($"its ETag was {expected}, is {found}");
            lock (changing)
            {
                // Storage behind a redirect has ETags of its own, and its answers should agree.
                if (
                    response.ETag is { } etag
                    && (!direct || file.Validator is null)
                    && (storage ??= etag) is { } first
                    && first != etag
                )
                {
                    if (file.Hash is not null)
                        storage = null; // which of the two is wrong shows at the end, by the hash
                    throw Strange($"its ETag in storage was {first}, is {etag}");
                }
                strange = 0;
            }
        }

        /// <summary>Spreads bytes over the parts that they belong to.</summary>
        public void Store(long from, ReadOnlySpan<byte> bytes)
        {
            while (bytes.Length > 0)
            {
                var index = 0;
                while (index + 1 < part.Parts && part.Start(index + 1) <= from)
                    index++;
                var count = (int)Math.Min(bytes.Length, part.Start(index) + part.Length(index) - from);
                part.Write(index, from - part.Start(index), bytes[..count]);
                from += count;
                bytes = bytes[count..];
            }
            report();
        }

        public void Dispose() => Whole.Dispose();

        private Exception Strange(string found) =>
            Interlocked.Increment(ref strange) <= 8
                ? new TransientException($"{file.Path} is another file now: {found}")
                : new UserFault(
                    $"{file.Path} changed on the server during the download.",
                    found: found,
                    next: "run the same command again: it takes the new content from its start"
                )
                {
                    Failed = true,
                };
    }
}
