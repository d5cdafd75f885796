using System.Net;
using System.Net.Http.Headers;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>A folder behind a plain address, asked for each file by name: any web server, or a container of Azure Blob
/// Storage, which needs no more than the right to read. There are no commits: the revision recorded is made of the
/// files' ETags.
/// </summary>
internal sealed class WebFolder(Uri folder, string cacheFolder, Login? login, HubSettings settings, HubHttp http)
    : IRemote
{
    public string CacheFolder => cacheFolder;

    public string CacheRoot => settings.OwnCache;

    public string DefaultRevision => "latest";

    public async Task<RemoteModel> ListAsync(string revision, CancellationToken stop)
    {
        var files = new Dictionary<string, RemoteFile>();
        async Task Look(string name)
        {
            if (await FindAsync(name, stop).ConfigureAwait(false) is { } file)
                files[name] = file;
        }
        foreach (var name in ModelLayout.Small.Append(ModelLayout.Weights))
            await Look(name).ConfigureAwait(false);
        if (!files.ContainsKey(ModelLayout.Config))
            throw new UserFault(
                $"There is no model at {Address("").GetLeftPart(UriPartial.Path)}.",
                found: "no config.json there",
                next: "name the address of the folder that holds config.json"
            );
        // The index is asked for only where it would be read.
        if (!files.ContainsKey(ModelLayout.Weights))
            await Look(ModelLayout.Index).ConfigureAwait(false);
        if (
            files.TryGetValue(ModelLayout.Index, out var index)
            && await http.DocumentAsync(index.Url, login, stop).ConfigureAwait(false) is { } document
        )
        {
            foreach (var name in ModelFiles.Shards(document.Body))
                await Look(name).ConfigureAwait(false);
        }
        // A named revision is a name made of contents: it holds only while the server has just that.
        var commit = CacheKey.Of(files.Values);
        return revision == DefaultRevision || revision == commit
            ? new(commit, files)
            : throw new UserFault(
                $"The model at {folder.Host} is no longer at revision \"{revision}\".",
                found: $"revision {commit}",
                next: "change model.revision, or leave it out"
            );
    }

    /// <summary>Size and ETag by asking for the first byte, which signed addresses permit where HEAD is
    /// refused.</summary>
    private async Task<RemoteFile?> FindAsync(string name, CancellationToken stop)
    {
        var url = Address(name);
        RemoteFile? found = null;
        await http.RetryAsync(
                url,
                async token =>
                {
                    using var response = await http.GetAsync(url, login, new RangeHeaderValue(0, 0), token)
                        .ConfigureAwait(false);
                    var headers = response.Message.Content.Headers;
                    if (response.Status == HttpStatusCode.NotFound)
                        return;
                    var size =
                        (
                            response.Encoding is not null ? null
                            : response.Status == HttpStatusCode.OK ? headers.ContentLength
                            : headers.ContentRange?.Length
                        )
                        ?? throw new UserFault(
                            $"{url.Host} does not say how long {name} is.",
                            next: "use a server that sends Content-Length"
                        );
                    var etag = response.ETag;
                    var version = etag ?? headers.LastModified?.ToString("O");
                    var blob = $"web-{CacheKey.Of($"{url.GetLeftPart(UriPartial.Path)}\n{version}\n{size}")}";
                    var md5 =
                        response.Header("x-ms-blob-content-md5")
                        ?? (
                            response.Status == HttpStatusCode.OK && headers.ContentMD5 is { } whole
                                ? Convert.ToBase64String(whole)
                                : null
                        );
                    found = new(name, url, size, blob, Md5(md5), etag, Resumable: etag is not null, login);
                },
                stop
            )
            .ConfigureAwait(false);
        return found;
    }

    private static Digest? Md5(string? text)
    {
        Span<byte> hash = stackalloc byte[16];
        return text is not null && Convert.TryFromBase64String(text, hash, out var count) && count == hash.Length
            ? new("md5", Convert.ToHexStringLower(hash))
            : null;
    }

    private Uri Address(string name) =>
        new UriBuilder(folder)
        {
            Path =
                folder.AbsolutePath.TrimEnd('/')
                + "/"
                + string.Join(
                    '/',
                    ModelFiles.Safe(name is "" ? "config.json" : name).Split('/').Select(Uri.EscapeDataString)
                ),
        }.Uri;
}
