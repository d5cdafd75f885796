using System.Text.Json;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>ModelScope. Its listing has a sha256 for each file but no commit of the whole: the revision recorded is
/// made of the hashes.</summary>
internal sealed class ModelScope(string id, HubSettings settings, HubHttp http) : IRemote
{
    private readonly Login? login = settings.ModelScopeToken is { Length: > 0 } token
        ? new(settings.ModelScope, "Cookie", $"m_session_id={token}")
        : null;

    public string CacheFolder { get; } = "modelscope--" + id.Replace("/", "--");

    public string CacheRoot => settings.OwnCache;

    public string DefaultRevision => "master";

    public async Task<RemoteModel> ListAsync(string revision, CancellationToken stop)
    {
        var url = new Uri(
            settings.ModelScope,
            $"api/v1/models/{id}/repo/files?Revision={Uri.EscapeDataString(revision)}&Recursive=true"
        );
        var (body, _) =
            await http.DocumentAsync(url, login, stop).ConfigureAwait(false)
            ?? throw new UserFault(
                $"ModelScope has no model \"{id}\" at revision \"{revision}\".",
                found: "HTTP 404",
                next: "check its name and model.revision"
            );
        try
        {
            using var answer = JsonDocument.Parse(body);
            var files = new Dictionary<string, RemoteFile>();
            foreach (
                var entry in answer
                    .RootElement.GetProperty("Data")
                    .GetProperty("Files")
                    .EnumerateArray()
                    .Where(entry => entry.GetProperty("Type").GetString() == "blob")
            )
            {
                var file = Listed(entry, revision);
                files[file.Path] = file;
            }
            return new(CacheKey.Of(files.Values), files);
        }
        catch (Exception e)
            when (e
                    is JsonException
                        or KeyNotFoundException
                        or InvalidOperationException
                        or FormatException
                        or ArgumentException
            )
        {
            throw new UserFault(
                "ModelScope's answer is not understood.",
                found: e.Message.Split('\n')[0],
                next: "check the model's name",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }

    private RemoteFile Listed(JsonElement entry, string revision)
    {
        var path = entry.GetProperty("Path").GetString()!;
        var sha =
            entry.TryGetProperty("Sha256", out var hash) && hash.GetString() is { Length: 64 } hex
                ? hex.ToLowerInvariant()
                : null;
        var url = new Uri(
            settings.ModelScope,
            $"api/v1/models/{id}/repo?Revision={Uri.EscapeDataString(revision)}&FilePath="
                + $"{Uri.EscapeDataString(path)}"
        );
        var size = entry.GetProperty("Size").GetInt64();
        return new(
            path,
            url,
            size,
            sha ?? $"unhashed-{CacheKey.Of($"{path} {size}")}",
            sha is null ? null : new("sha256", sha),
            Validator: null,
            Resumable: sha is not null,
            login
        );
    }
}
