using System.Globalization;
using System.Text.Json.Nodes;
using Memopt.Tracking;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>MLflow's REST interface over a store: what its clients log becomes runs like any other, and all runs can be
/// asked for through it.</summary>
internal sealed class MlflowApi
{
    /// <summary>The version of MLflow whose server this one answers like: clients do without what came later.</summary>
    private const string Version = "2.22.0";

    private readonly ArtifactCalls served;
    private readonly Dictionary<string, Call> calls;

    private MlflowApi(LiteRunStore store, LocalArtifacts artifacts, OpenRuns open)
    {
        var files = new RunArtifacts(store, artifacts, open);
        served = new(files, store, TimeProvider.System);
        var experiments = new ExperimentCalls(store.Experiments);
        calls = Calls(
            experiments,
            new RunCalls(store, open, experiments, files, TimeProvider.System),
            new RunLogCalls(open),
            new HistoryCalls(store, files)
        );
    }

    private delegate JsonObject Call(MlflowRequest request, HttpRequest http);

    public static void Map(IEndpointRouteBuilder endpoints, LiteRunStore store, LocalArtifacts artifacts)
    {
        var open = new OpenRuns(store, TimeProvider.System);
        endpoints
            .ServiceProvider.GetRequiredService<IHostApplicationLifetime>()
            .ApplicationStopped.Register(open.Dispose);
        var api = new MlflowApi(store, artifacts, open);
        foreach (var prefix in new[] { "/api", "/ajax-api" })
        {
            endpoints.Map(
                $"{prefix}/2.0/mlflow/{{**path}}",
                context => Answer(context, async () => await api.Invoke(context))
            );
            endpoints.Map($"{prefix}/3.0/mlflow/{{**path}}", Refuse);
            api.MapArtifacts(endpoints, $"{prefix}/2.0/mlflow-artifacts");
        }
        endpoints.MapGet("/health", context => context.Response.WriteAsync("OK"));
        endpoints.MapGet("/version", context => context.Response.WriteAsync(Version));
    }

    /// <summary>The calls on experiments and runs, by method and path.</summary>
    private Dictionary<string, Call> Calls(
        ExperimentCalls experiments,
        RunCalls runs,
        RunLogCalls logs,
        HistoryCalls history
    )
    {
        static Call Of(Func<MlflowRequest, JsonObject> call) => (request, _) => call(request);
        return new()
        {
            ["POST experiments/create"] = Of(experiments.Create),
            ["POST experiments/search"] = Of(experiments.Search),
            ["GET experiments/search"] = Of(experiments.Search),
            ["GET experiments/list"] = Of(experiments.List),
            ["GET experiments/get"] = Of(experiments.Get),
            ["GET experiments/get-by-name"] = Of(experiments.GetByName),
            ["POST experiments/delete"] = Of(experiments.Delete),
            ["POST experiments/restore"] = Of(experiments.Restore),
            ["POST experiments/update"] = Of(experiments.Update),
            ["POST experiments/set-experiment-tag"] = Of(experiments.SetTag),
            ["POST experimentsset-experiment-tag"] = Of(experiments.SetTag), // as the npm package mlflow spells it
            ["POST experiments/delete-experiment-tag"] = Of(experiments.DeleteTag),
            ["POST runs/create"] = Of(runs.Create),
            ["GET runs/get"] = Of(runs.Get),
            ["POST runs/search"] = Of(runs.Search),
            ["POST runs/update"] = Of(runs.Update),
            ["POST runs/delete"] = Of(runs.Delete),
            ["POST runs/restore"] = Of(runs.Restore),
            ["POST runs/set-tag"] = Of(logs.SetTag),
            ["POST runs/delete-tag"] = Of(logs.DeleteTag),
            ["POST runs/log-metric"] = Of(logs.LogMetric),
            ["POST runs/log-parameter"] = Of(logs.LogParam),
            ["POST runs/log-batch"] = Of(logs.LogBatch),
            ["POST runs/log-inputs"] = Of(logs.LogInputs),
            ["POST runs/outputs"] = Of(logs.LogOutputs),
            ["POST runs/log-model"] = Of(logs.LogModel),
            ["GET metrics/get-history"] = Of(history.Get),
            ["GET metrics/get-history-bulk-interval"] = Of(history.GetSeveral),
            ["GET artifacts/list"] = Of(served.List),
            ["POST artifacts/presigned-upload-url"] = served.UploadUrl,
            ["POST artifacts/presigned-download-url"] = served.DownloadUrl,
        };
    }

    private async Task<JsonObject?> Invoke(HttpContext context)
    {
        var (request, path) = (context.Request, Rest(context));
        if (!calls.TryGetValue($"{request.Method} {path}", out var call))
            throw Unknown(request);
        return call(await Read(request, path == "runs/log-batch" ? Limits.BatchBytes : int.MaxValue), request);
    }

    private void MapArtifacts(IEndpointRouteBuilder endpoints, string prefix)
    {
        endpoints.MapGet(
            $"{prefix}/artifacts",
            context => Answer(context, () => served.ListServed(new(context.Request.Query)))
        );
        endpoints.MapGet(
            $"{prefix}/artifacts/{{**path}}",
            context =>
                Answer(
                    context,
                    async () =>
                    {
                        await served.Get(Rest(context), context);
                        return null;
                    }
                )
        );
        endpoints.MapPut(
            $"{prefix}/artifacts/{{**path}}",
            context => Answer(context, async () => await served.Put(Rest(context), context))
        );
        endpoints.MapDelete(
            $"{prefix}/artifacts/{{**path}}",
            context => Answer(context, () => served.Delete(Rest(context)))
        );
        MapUploads(endpoints, $"{prefix}/mpu");
        endpoints.Map($"{prefix}/{{**path}}", Refuse);
    }

    /// <summary>Uploads of a file in parts.</summary>
    private void MapUploads(IEndpointRouteBuilder endpoints, string prefix)
    {
        endpoints.MapPost(
            $"{prefix}/create/{{**path}}",
            context =>
                Answer(
                    context,
                    async () => served.CreateUpload(Rest(context), await Read(context.Request), context.Request)
                )
        );
        endpoints.MapPut(
            $"{prefix}/part/{{id}}/{{part:int}}",
            context =>
                Answer(
                    context,
                    async () =>
                    {
                        var route = context.Request.RouteValues;
                        var part = int.Parse((string)route["part"]!, CultureInfo.InvariantCulture);
                        await served.PutPart((string)route["id"]!, part, context);
                        return [];
                    }
                )
        );
        endpoints.MapPost(
            $"{prefix}/complete/{{**path}}",
            context => Answer(context, async () => served.CompleteUpload(await Read(context.Request)))
        );
        endpoints.MapPost(
            $"{prefix}/abort/{{**path}}",
            context => Answer(context, async () => served.AbortUpload(await Read(context.Request)))
        );
    }

    private static Task Refuse(HttpContext context) =>
        Answer(context, () => Task.FromException<JsonObject?>(Unknown(context.Request)));

    private static Task Answer(HttpContext context, Func<JsonObject> call) =>
        Answer(context, async () => await Task.FromResult(call()));

    /// <summary>Sends what a call gives, or the error it ends with; null when the call has answered itself.</summary>
    private static async Task Answer(HttpContext context, Func<Task<JsonObject?>> call)
    {
        var status = StatusCodes.Status200OK;
        JsonObject? answer;
        try
        {
            answer = await call();
        }
        catch (MlflowFault e)
        {
            (status, answer) = (e.Status, Error(e.Code, e.Message));
        }
        catch (QueryException e)
        {
            (status, answer) = (StatusCodes.Status400BadRequest, Error(MlflowFault.Invalid, e.Message));
        }
        catch (BadHttpRequestException e)
        {
            (status, answer) = (e.StatusCode, Error(MlflowFault.Invalid, e.Message));
        }
        catch (Exception e)
            when (e is TrackingException or IOException or UnauthorizedAccessException
                && !context.RequestAborted.IsCancellationRequested
            )
        {
            (status, answer) = (StatusCodes.Status500InternalServerError, Error(MlflowFault.Internal, e.Message));
        }
        if (answer is null || context.Response.HasStarted)
            return;
        context.Response.StatusCode = status;
        context.Response.ContentType = "application/json";
        await context.Response.WriteAsync(answer.ToJsonString(), context.RequestAborted);
    }

    private static async Task<MlflowRequest> Read(HttpRequest request, int most = int.MaxValue)
    {
        if (HttpMethods.IsGet(request.Method))
            return new(request.Query);
        using var body = new MemoryStream();
        await request.Body.CopyToAsync(body, request.HttpContext.RequestAborted);
        if (body.Length > most)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"Batched logging API requests must be at most {most} bytes, got a request of size {body.Length}."
            );
        return MlflowRequest.Parse(body.GetBuffer().AsMemory(0, (int)body.Length));
    }

    /// <summary>The address after its prefix; a slash that was sent as %2F is one, too.</summary>
    private static string Rest(HttpContext context) =>
        ((string?)context.Request.RouteValues["path"] ?? "").Replace("%2F", "/", StringComparison.OrdinalIgnoreCase);

    private static MlflowFault Unknown(HttpRequest request) =>
        new(MlflowFault.Unknown, $"No API found for '{request.Method} {request.Path}'.");

    private static JsonObject Error(string code, string message) =>
        new() { ["error_code"] = code, ["message"] = message };
}
