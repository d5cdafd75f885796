using System.IO.Compression;
using System.Net;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>An answer whose body has not been read.</summary>
/// <param name="Message">The last hop.</param>
/// <param name="Url">Where the last hop was.</param>
/// <param name="LinkedETag">The hub's own ETag of the content, when it redirects to storage.</param>
internal sealed record HubResponse(HttpResponseMessage Message, Uri Url, string? LinkedETag) : IDisposable
{
    public HttpStatusCode Status => Message.StatusCode;

    /// <summary>ETag of the bytes that follow, without quotes.</summary>
    public string? ETag => Bare(Message.Headers.TryGetValues("ETag", out var values) ? values.First() : null);

    public static string? Bare(string? etag) =>
        etag is null ? null : (etag.StartsWith("W/", StringComparison.Ordinal) ? etag[2..] : etag).Trim('"');

    public string? Header(string name) =>
        Message.Headers.TryGetValues(name, out var values) || Message.Content.Headers.TryGetValues(name, out values)
            ? values.First()
            : null;

    /// <summary>How the body is compressed, by a server or a proxy that does so unasked; null when it is not.</summary>
    public string? Encoding =>
        Message.Content.Headers.ContentEncoding.LastOrDefault(encoding => encoding != "identity");

    /// <summary>The body as it was before that.</summary>
    public async Task<Stream> BodyAsync(CancellationToken stop)
    {
        var body = await Message.Content.ReadAsStreamAsync(stop).ConfigureAwait(false);
        return Encoding switch
        {
            null => body,
            "gzip" or "x-gzip" => new GZipStream(body, CompressionMode.Decompress),
            "deflate" => new ZLibStream(body, CompressionMode.Decompress),
            "br" => new BrotliStream(body, CompressionMode.Decompress),
            var other => throw new UserFault(
                $"{Url.Host} compresses what it sends, and not in a way that was asked for.",
                found: $"Content-Encoding: {other}",
                next: "use another source or network"
            )
            {
                Failed = true,
            },
        };
    }

    public void Dispose() => Message.Dispose();
}
