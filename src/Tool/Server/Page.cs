using System.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Commands;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace Memopt.Tool.Server;

/// <summary>The page and what it asks for, under <c>/api</c>. It only reads, and nothing it gives is found by a path
/// that a caller or a record names.</summary>
internal static class Page
{
    private const int MostRuns = 500,
        MostPoints = 4_000,
        LogBytes = 256 << 10;

    private static readonly string[] usual = ["run_id"];

    public static void Map(WebApplication app, UiOptions options)
    {
        var (runs, artifacts) = (options.Store, options.Artifacts);
        var assembly = typeof(Page).Assembly;
        foreach (
            var name in assembly
                .GetManifestResourceNames()
                .Where(name => name.StartsWith("page/", StringComparison.Ordinal))
        )
        {
            var path = name["page".Length..];
            app.MapGet(
                path == "/index.html" ? "/" : path,
                () => Results.Stream(assembly.GetManifestResourceStream(name)!, Type(path))
            );
        }
        var api = app.MapGroup("/api").AddEndpointFilter(HandleErrors);
        api.MapGet(
            "/runs",
            (string? filter, string? columns, int? limit, string? page, int? patience, CancellationToken stop) =>
                SearchRuns(runs, filter, columns, limit, page, patience, stop)
        );
        api.MapGet(
            "/runs/{id}",
            (string id) => runs.Get(id) is { } run ? Json(RunView.Of(run, runs)) : Missing($"There is no run {id}.")
        );
        api.MapGet(
            "/runs/{id}/points",
            (string id, string[] metric, string[] after, int? most) => Points(runs, id, metric, after, most)
        );
        api.MapGet("/runs/{id}/log", (string id, long? after) => Log(runs, id, after));
        api.MapGet("/compare", (string[] run) => CompareRuns(runs, run));
        api.MapGet("/artifacts/{hash}", (string hash) => Json(artifacts.Files(hash)));
        api.MapGet(
            "/artifacts/{hash}/file",
            (string hash, string path) =>
                Results.Stream(artifacts.Open(hash, path), "application/octet-stream", Path.GetFileName(path))
        );
    }

    /// <summary>Runs as <c>runs list</c> finds them. A filter that cannot be read is an answer like another: it is
    /// asked for with every key that is typed.</summary>
    private static IResult SearchRuns(
        LiteRunStore runs,
        string? filter,
        string? columns,
        int? limit,
        string? page,
        int? patience,
        CancellationToken stop
    )
    {
        var shown = string.IsNullOrWhiteSpace(columns) ? usual : [.. RunsList.Apart(columns)];
        try
        {
            var found = runs.Find(
                new RunQuery
                {
                    Filter = filter,
                    Columns = shown,
                    Limit = Math.Clamp(limit ?? 50, 1, MostRuns),
                    Page = page,
                    Patience = patience is { } milliseconds
                        ? TimeSpan.FromMilliseconds(Math.Clamp(milliseconds, 0, 60_000))
                        : null,
                    Stop = stop,
                }
            );
            return Json(
                new
                {
                    columns = shown,
                    runs = found.Runs.Select(RunSummary.Of),
                    values = found.Values,
                    next = found.Next,
                    unknown = found.Unknown,
                    waiting = found.Waiting,
                }
            );
        }
        catch (QueryException e)
        {
            return Json(
                new
                {
                    problem = new
                    {
                        message = e.Message,
                        text = e.Text,
                        position = e.Position,
                    },
                }
            );
        }
    }

    /// <summary>Curves of some metrics, each from the points after a step of its own (nothing for all of
    /// them).</summary>
    private static IResult Points(LiteRunStore runs, string id, string[] metrics, string[] after, int? most) =>
        Json(
            metrics
                .Zip(after.Concat(Enumerable.Repeat("", metrics.Length)))
                .DistinctBy(one => one.First)
                .ToDictionary(
                    one => one.First,
                    one =>
                        Curve.Downsample(
                            runs.Points(id, one.First, long.TryParse(one.Second, out var step) ? step : long.MinValue),
                            Math.Clamp(most ?? 1_000, 10, MostPoints)
                        )
                )
        );

    private static IResult CompareRuns(LiteRunStore runs, string[] ids)
    {
        var chosen = new List<Run>();
        foreach (var id in ids.Distinct())
        {
            if (runs.Get(id) is not { } run)
                return Missing($"There is no run {id}.");
            chosen.Add(run);
        }
        return Json(
            new
            {
                runs = chosen.Select(run => new { run = RunSummary.Of(run), metrics = run.Metrics }),
                differences = RunDiff.Among(chosen),
            }
        );
    }

    /// <summary>What a run printed after so many bytes, or the end of it.</summary>
    private static IResult Log(LiteRunStore runs, string id, long? after)
    {
        using var log = runs.ReadLog(id);
        if (log is null)
            return Json(
                new
                {
                    text = "",
                    from = 0,
                    next = 0,
                }
            );
        var from = after is { } given && given <= log.Length ? Math.Max(given, 0) : Math.Max(0, log.Length - LogBytes);
        log.Position = from;
        var bytes = new byte[(int)Math.Min(LogBytes, log.Length - from)];
        var read = log.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
        // Whole lines only: the rest comes with the next.
        var (first, end) = (
            after is null && from > 0 ? bytes.AsSpan(0, read).IndexOf((byte)'\n') + 1 : 0,
            bytes.AsSpan(0, read).LastIndexOf((byte)'\n') + 1
        );
        return Json(
            new
            {
                text = Encoding.UTF8.GetString(bytes, first, Math.Max(0, end - first)),
                from = from + first,
                next = from + end,
            }
        );
    }

    /// <summary>A fault that has a message is reported with it.</summary>
    private static async ValueTask<object?> HandleErrors(
        EndpointFilterInvocationContext context,
        EndpointFilterDelegate next
    )
    {
        try
        {
            return await next(context);
        }
        catch (TrackingException e)
        {
            return Results.Json(
                new { error = new { message = e.Message, next = e.Next } },
                Shell.Lines,
                statusCode: context.HttpContext.Request.Path.StartsWithSegments("/api/artifacts")
                    ? StatusCodes.Status404NotFound
                    : StatusCodes.Status500InternalServerError
            );
        }
    }

    private static IResult Missing(string message) =>
        Results.Json(new { error = new { message } }, Shell.Lines, statusCode: StatusCodes.Status404NotFound);

    private static IResult Json<T>(T value) => Results.Json(value, Shell.Lines);

    private static string Type(string path) =>
        Path.GetExtension(path) switch
        {
            ".html" => "text/html; charset=utf-8",
            ".js" => "text/javascript; charset=utf-8",
            ".css" => "text/css; charset=utf-8",
            ".svg" => "image/svg+xml",
            var other => throw new NotSupportedException(other),
        };
}
