using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Tracking;

namespace Memopt.Tool.Tests;

/// <summary>What the server answered.</summary>
internal sealed record Answer(int Status, JsonNode? Body)
{
    public string? Error => (string?)Body?["error_code"];
    public string Message => (string)Body!["message"]!;
}

/// <summary><c>dotnet memopt ui</c> as a process over a store in a new folder, asked through its socket.</summary>
public sealed class MlflowServer : IDisposable
{
    private readonly HttpClient http = new() { Timeout = Cli.Patience };
    private readonly string[] arguments;
    private Process process = null!;

    public MlflowServer()
        : this([]) { }

    internal MlflowServer(params string[] arguments)
    {
        this.arguments = arguments;
        Start();
    }

    internal string Folder { get; } = Directory.CreateTempSubdirectory("memopt").FullName;
    internal string Url { get; private set; } = "";
    internal LiteRunStore Store => new(Path.Combine(Folder, ".memopt", "store"));
    internal LocalArtifacts Artifacts => new(Path.Combine(Folder, ".memopt", "artifacts"));

    internal void Start()
    {
        process = Cli.Start(Folder, ["ui", "--port", "0", "--json", .. arguments]);
        var json = new StringBuilder();
        while (process.StandardOutput.ReadLine() is { } line)
        {
            json.AppendLine(line);
            if (line.TrimEnd().EndsWith('}'))
                break;
        }
        Assert.True(json.Length > 0, "the server did not begin");
        _ = process.StandardError.ReadToEndAsync(); // what nobody reads would hold it up in the end
        Url = ((string)JsonNode.Parse(json.ToString())!["url"]!).Split("/?")[0].TrimEnd('/');
    }

    /// <summary>SIGKILL: nothing of the process runs any more.</summary>
    internal void Kill()
    {
        process.Kill();
        process.WaitForExit();
        process.Dispose();
    }

    /// <summary>What each request says of the caller's right, as MLFLOW_TRACKING_TOKEN makes clients do.</summary>
    internal string? Bearer { get; set; }

    internal async Task<Answer> Send(HttpMethod method, string path, HttpContent? content = null)
    {
        using var request = new HttpRequestMessage(method, Url + path) { Content = content };
        if (Bearer is not null)
            request.Headers.Authorization = new("Bearer", Bearer);
        using var response = await http.SendAsync(request);
        var text = await response.Content.ReadAsStringAsync();
        return new((int)response.StatusCode, text.StartsWith('{') ? JsonNode.Parse(text) : text);
    }

    internal Task<Answer> Get(string path) => Send(HttpMethod.Get, "/api/2.0/mlflow/" + path);

    internal Task<Answer> Post(string path, object body) =>
        Send(HttpMethod.Post, "/api/2.0/mlflow/" + path, Json(body));

    /// <summary>What a call that must succeed gives.</summary>
    internal async Task<JsonNode> Done(string path, object body)
    {
        var answer = await Post(path, body);
        Assert.True(answer.Status == 200, $"{path}: {answer.Status} {answer.Body}");
        return answer.Body!;
    }

    internal async Task<JsonNode> Got(string path)
    {
        var answer = await Get(path);
        Assert.True(answer.Status == 200, $"{path}: {answer.Status} {answer.Body}");
        return answer.Body!;
    }

    internal async Task<string> NewExperiment(string? name = null) =>
        (string)(await Done("experiments/create", new { name = name ?? Guid.NewGuid().ToString() }))["experiment_id"]!;

    internal async Task<string> NewRun(string experiment_id, object? tags = null) =>
        (string)
            (
                await Done(
                    "runs/create",
                    new
                    {
                        experiment_id,
                        start_time = 1764028800000,
                        tags,
                    }
                )
            )["run"]!["info"]!["run_id"]!;

    internal static StringContent Json(object body) =>
        new(body as string ?? System.Text.Json.JsonSerializer.Serialize(body), Encoding.UTF8, "application/json");

    public void Dispose()
    {
        if (!process.HasExited)
            Kill();
        http.Dispose();
        Directory.Delete(Folder, recursive: true);
    }
}
