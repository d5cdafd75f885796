using System.Text.Json;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>A model or a data set on the Hugging Face Hub, or a mirror that speaks its protocol.</summary>
internal sealed class HuggingFace(string id, HubSettings settings, HubHttp http, bool dataSet = false) : IRemote
{
    private const int MostPages = 1_000,
        MostFiles = 300_000;

    private readonly (string Kind, string Address) kind = dataSet ? ("datasets", $"datasets/{id}") : ("models", id);
    private readonly Login? login = settings.Token is { Length: > 0 } token
        ? new(settings.Endpoint, "Authorization", $"Bearer {token}")
        : null;

    public string CacheFolder => $"{kind.Kind}--{id.Replace("/", "--")}";

    public string CacheRoot => settings.HubCache;

    public string DefaultRevision => "main";

    public async Task<RemoteModel> ListAsync(string revision, CancellationToken stop)
    {
        try
        {
            return await AllAsync(revision, stop).ConfigureAwait(false);
        }
        catch (Exception e)
            when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new UserFault(
                $"{settings.Endpoint.Host} does not answer as a model hub.",
                found: e.Message.Split('\n')[0],
                next: "check HF_ENDPOINT",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }

    private async Task<RemoteModel> AllAsync(string revision, CancellationToken stop)
    {
        using var about = await JsonAsync(
                $"api/{kind.Kind}/{id}/revision/{Uri.EscapeDataString(revision)}",
                revision,
                stop
            )
            .ConfigureAwait(false);
        var commit = ModelFiles.SafePart(Text(about.Document.RootElement, "sha"));
        var files = new Dictionary<string, RemoteFile>();
        var asked = new HashSet<string>();
        // From here on everything is asked of the commit, so that a push in between changes nothing.
        var page = $"api/{kind.Kind}/{id}/tree/{commit}?recursive=true&expand=false";
        while (page is not null)
        {
            if (
                !asked.Add(new Uri(settings.Endpoint, page).PathAndQuery)
                || asked.Count > MostPages
                || files.Count > MostFiles
            )
            {
                throw new UserFault(
                    $"{settings.Endpoint.Host} lists files without end.",
                    found: $"{files.Count:N0} files on {asked.Count:N0} pages",
                    next: $"at most {MostFiles:N0} files are listed; use another source"
                );
            }
            using var tree = await JsonAsync(page, revision, stop).ConfigureAwait(false);
            foreach (
                var entry in tree
                    .Document.RootElement.EnumerateArray()
                    .Where(entry => entry.GetProperty("type").GetString() == "file")
            )
            {
                var path = Text(entry, "path");
                var large = entry.TryGetProperty("lfs", out var lfs) && lfs.ValueKind == JsonValueKind.Object;
                var blob = Text(large ? lfs : entry, "oid");
                var size = (large ? lfs : entry).GetProperty("size").GetInt64();
                var url = new Uri(
                    settings.Endpoint,
                    $"{kind.Address}/resolve/{commit}/{string.Join('/', path.Split('/').Select(Uri.EscapeDataString))}"
                );
                files[path] = new(path, url, size, blob, Digest.OfBlobName(blob), blob, Resumable: true, login);
            }
            page = tree.Next;
        }
        return new(commit, files);
    }

    private async Task<Page> JsonAsync(string path, string revision, CancellationToken stop)
    {
        var url = new Uri(settings.Endpoint, path);
        var (body, response) =
            await http.DocumentAsync(url, login, stop).ConfigureAwait(false)
            ?? throw new UserFault(
                $"{settings.Endpoint.Host} has no {(dataSet ? "data set" : "model")} \"{id}\" at revision \""
                    + $"{revision}\".",
                found: dataSet ? "HTTP 404" : "HTTP 404, and there is no such folder here either",
                next: dataSet
                    ? "check its name and revision (hf:org/name@revision); a private data set needs HF_TOKEN"
                    : "check its name and model.revision; a private model needs HF_TOKEN"
            );
        // Long listings come in pages: Link: <address>; rel="next"
        var next = response
            .Header("Link")
            ?.Split(',')
            .FirstOrDefault(link => link.Contains("rel=\"next\"", StringComparison.Ordinal));
        // Of the next page's address only the path is taken: it is asked of this hub, whatever host it names.
        return new(
            JsonDocument.Parse(body),
            next is null ? null : new Uri(settings.Endpoint, next.Trim().TrimStart('<').Split('>')[0]).PathAndQuery
        );
    }

    private static string Text(JsonElement entry, string key) =>
        entry.GetProperty(key).GetString() ?? throw new KeyNotFoundException($"\"{key}\" is null");

    private sealed record Page(JsonDocument Document, string? Next) : IDisposable
    {
        public void Dispose() => Document.Dispose();
    }
}
