using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tracking;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>Calls on the files of runs. Their bytes go through this server, so every address that it gives out is its
/// own.</summary>
internal sealed class ArtifactCalls(RunArtifacts artifacts, LiteRunStore store, TimeProvider clock)
{
    public const string Prefix = "/api/2.0/mlflow-artifacts/";

    private const int MostUploads = 64,
        MostParts = 10_000;

    /// <summary>A file that comes in parts; they lie in a folder until it is complete.</summary>
    private sealed record Upload(string Path, string Folder, DateTimeOffset Begun);

    private readonly ConcurrentDictionary<string, Upload> uploads = new();

    public JsonObject List(MlflowRequest request)
    {
        var run = artifacts.Known(request.RunId);
        var path = request.Text("path") is { Length: > 0 } given ? RunArtifacts.Checked(given.TrimEnd('/')) : "";
        return new()
        {
            ["root_uri"] = RunArtifacts.Root(Experiment(run), run.Start.Id),
            ["files"] = Answers.List(artifacts.List(run, path), file => File(file, file.Path)),
        };
    }

    public JsonObject UploadUrl(MlflowRequest request, HttpRequest http)
    {
        var (run, path) = (artifacts.Known(request.RunId), RunArtifacts.Checked(request.Required("path")));
        return new()
        {
            ["presigned_url"] = Url(http, $"artifacts/{RunArtifacts.Served(Experiment(run), run.Start.Id, path)}"),
            ["headers"] = Headers(http),
        };
    }

    public JsonObject DownloadUrl(MlflowRequest request, HttpRequest http)
    {
        var path = RunArtifacts.Checked(request.Required("path"));
        var answer = UploadUrl(request, http);
        answer["file_size"] = artifacts.File(artifacts.Known(request.RunId), path).Bytes;
        return answer;
    }

    /// <summary>The files of a folder by their last names, as the server of artifacts lists them.</summary>
    public JsonObject ListServed(MlflowRequest request)
    {
        if (request.Text("path")?.Trim('/') is not { Length: > 0 } served)
            return new() { ["files"] = new JsonArray() };
        var (run, path) = artifacts.Find(served);
        return new()
        {
            ["files"] = Answers.List(artifacts.List(run, path), file => File(file, RunArtifacts.Leaf(file.Path))),
        };
    }

    public async Task Get(string served, HttpContext context)
    {
        var (run, path) = artifacts.Find(served);
        // As a download whatever it is: a page among a run's files must not act as one of this server's.
        await Results
            .Stream(
                artifacts.Read(artifacts.File(run, path)),
                "application/octet-stream",
                RunArtifacts.Leaf(path),
                enableRangeProcessing: true
            )
            .ExecuteAsync(context);
    }

    public async Task<JsonObject> Put(string served, HttpContext context)
    {
        var (run, path) = Target(served);
        var folder = artifacts.Incoming();
        try
        {
            var file = Path.Combine(folder, RunArtifacts.Leaf(path));
            await Save(context, file);
            artifacts.Put(run, path, file);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
        return [];
    }

    public JsonObject Delete(string served)
    {
        var (run, path) = artifacts.Find(served.TrimEnd('/'));
        artifacts.Delete(run, path);
        return [];
    }

    /// <summary>Begins a file in parts. Which file: the address names the folder, the message the file.</summary>
    public JsonObject CreateUpload(string served, MlflowRequest request, HttpRequest http)
    {
        var path = $"{served}/{RunArtifacts.Leaf(request.Required("path"))}";
        Target(path);
        var parts = request.Count("num_parts", 1, MostParts);
        foreach (var (old, one) in uploads.OrderByDescending(upload => upload.Value.Begun).Skip(MostUploads - 1))
            Drop(old, one);
        var id = Guid.NewGuid().ToString("N");
        uploads[id] = new(path, artifacts.Incoming(), clock.GetUtcNow());
        return new()
        {
            ["upload_id"] = id,
            ["credentials"] = Answers.List(
                Enumerable.Range(1, parts),
                part => new JsonObject
                {
                    ["url"] = Url(http, $"mpu/part/{id}/{part}"),
                    ["part_number"] = part,
                    ["headers"] = Headers(http),
                }
            ),
        };
    }

    public async Task PutPart(string id, int part, HttpContext context)
    {
        if (part is < 1 or > MostParts)
            throw new MlflowFault(MlflowFault.Invalid, $"There is no part {part}.");
        var file = Path.Combine(Known(id).Folder, part.ToString(CultureInfo.InvariantCulture));
        await Save(context, file);
        context.Response.Headers.ETag = $"\"{Sha256.OfFile(file)}\"";
    }

    public JsonObject CompleteUpload(MlflowRequest request)
    {
        var id = request.Required("upload_id");
        var upload = Known(id);
        var (run, path) = Target(upload.Path);
        var parts = request
            .Messages("parts")
            .Select(part => (Number: part.Integer("part_number") ?? 0, Tag: part.Text("etag")))
            .OrderBy(part => part.Number)
            .ToList();
        var files = parts
            .Select(part => Path.Combine(upload.Folder, part.Number.ToString(CultureInfo.InvariantCulture)))
            .ToList();
        for (var i = 0; i < parts.Count; i++)
        {
            if (
                parts[i].Number != i + 1
                || !System.IO.File.Exists(files[i])
                || (parts[i].Tag is { Length: > 0 } tag && tag.Trim('"') != Sha256.OfFile(files[i]))
            )
                throw new MlflowFault(
                    MlflowFault.Invalid,
                    $"Part {i + 1} of {upload.Path} is missing, or is not what was uploaded."
                );
        }
        var folder = Directory.CreateDirectory(Path.Combine(upload.Folder, "whole")).FullName;
        var whole = Path.Combine(folder, RunArtifacts.Leaf(path));
        using (var target = System.IO.File.Create(whole))
        {
            foreach (var file in files)
            {
                using var source = System.IO.File.OpenRead(file);
                source.CopyTo(target);
            }
        }
        artifacts.Put(run, path, whole);
        Drop(id, upload);
        return [];
    }

    public JsonObject AbortUpload(MlflowRequest request)
    {
        var id = request.Required("upload_id");
        Drop(id, Known(id));
        return [];
    }

    private (Run Run, string Path) Target(string served) =>
        artifacts.Find(served) is { Path.Length: > 0 } target
            ? target
            : throw new MlflowFault(MlflowFault.Invalid, $"Invalid path: '{served}' names no file.");

    private Upload Known(string id) =>
        uploads.GetValueOrDefault(id)
        ?? throw new MlflowFault(
            MlflowFault.Missing,
            $"There is no upload {id}. Those that were not completed are forgotten when the server ends."
        );

    private void Drop(string id, Upload upload)
    {
        if (uploads.TryRemove(KeyValuePair.Create(id, upload)))
            Directory.Delete(upload.Folder, recursive: true);
    }

    private string Experiment(Run run) => store.Experiments.Of(run.Start.Experiment).Id;

    private static async Task Save(HttpContext context, string file)
    {
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } size)
            size.MaxRequestBodySize = null;
        await using var target = System.IO.File.Create(file);
        await context.Request.Body.CopyToAsync(target, context.RequestAborted);
    }

    private static JsonObject File(RunFile file, string name)
    {
        var shown = new JsonObject { ["path"] = name, ["is_dir"] = file.Bytes is null };
        if (file.Bytes is not null)
            shown["file_size"] = file.Bytes;
        return shown;
    }

    private static string Url(HttpRequest http, string path) =>
        $"{http.Scheme}://{http.Host}{Prefix}{string.Join('/', path.Split('/').Select(Uri.EscapeDataString))}";

    /// <summary>What a caller of such an address must send: its right to be here, where one is asked for.</summary>
    private static JsonObject Headers(HttpRequest http) =>
        http.Headers.Authorization.ToString() is { Length: > 0 } right ? new() { ["Authorization"] = right } : [];
}
