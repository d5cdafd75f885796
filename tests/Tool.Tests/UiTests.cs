using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Tool.Server;
using Memopt.Tracking;

namespace Memopt.Tool.Tests;

/// <summary><c>ui</c> as a process: who may reach it over real sockets, what it answers, and the page in a real browser
/// while a real training runs.</summary>
public sealed class UiTests : IDisposable
{
    private const string Secret = "what lies beside the store";

    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly List<Process> started = [];

    public void Dispose()
    {
        foreach (var process in started)
        {
            process.Kill(entireProcessTree: true);
            process.Dispose();
        }
    }

    [Fact]
    public async Task Server_refuses_requests_that_a_page_of_another_site_sends()
    {
        var port = new Uri(Serve()).Port;
        Assert.Equal(200, await Status(port, "GET / HTTP/1.1", $"Host: 127.0.0.1:{port}"));
        Assert.Equal(200, await Status(port, "GET /api/runs HTTP/1.1", $"Host: localhost:{port}"));
        Assert.Equal(200, await Status(port, "GET /api/runs HTTP/1.1", $"Host: [::1]:{port}"));

        // Its own name, resolved to this address.
        foreach (
            var host in new[]
            {
                $"rebound.example:{port}",
                "rebound.example",
                $"127.0.0.1.rebound.example:{port}",
                $"localhost.rebound.example:{port}",
                "127.0.0.1",
                $"127.0.0.1:{port + 1}",
                $"192.168.0.1:{port}",
                "",
            }
        )
            Assert.InRange(await Status(port, "GET /api/runs HTTP/1.1", $"Host: {host}"), 400, 421);

        // Its own requests.
        var here = $"Host: 127.0.0.1:{port}";
        foreach (
            var foreign in new[]
            {
                "Origin: http://elsewhere.example",
                "Origin: null",
                $"Origin: http://127.0.0.1:{port + 1}",
                $"Origin: https://127.0.0.1:{port}",
                $"Origin: http://localhost:{port}",
                "Sec-Fetch-Site: cross-site",
                "Sec-Fetch-Site: same-site",
            }
        )
        {
            foreach (
                var request in new[]
                {
                    "POST / HTTP/1.1",
                    "POST /api/runs HTTP/1.1",
                    "POST /api/2.0/mlflow/runs/create HTTP/1.1",
                    "DELETE /api/runs HTTP/1.1",
                    "OPTIONS /api/runs HTTP/1.1",
                    "GET /api/runs HTTP/1.1",
                    "GET /app.js HTTP/1.1",
                }
            )
                Assert.Equal(403, await Status(port, request, here, foreign, "Content-Length: 0"));
            Assert.Equal(200, await Status(port, "GET / HTTP/1.1", here, foreign)); // a link may stand anywhere
        }
        Assert.Equal(
            200,
            await Status(
                port,
                "GET /api/runs HTTP/1.1",
                here,
                $"Origin: http://127.0.0.1:{port}",
                "Sec-Fetch-Site: same-origin"
            )
        );

        var (_, head, _) = await Send(port, "GET / HTTP/1.1", here);
        Assert.Contains("Content-Security-Policy: default-src 'self'", head);
        Assert.Contains("X-Content-Type-Options: nosniff", head);
        Assert.Contains("X-Frame-Options: DENY", head);
        Assert.Contains("Referrer-Policy: no-referrer", head);
        Assert.DoesNotContain("Access-Control-", head);
    }

    [Fact]
    public async Task Server_asked_without_its_token_answers_nothing()
    {
        var url = new Uri(Serve("--host", "0.0.0.0"));
        var token = url.Query["?token=".Length..];
        Assert.Equal(64, token.Length);
        var (port, host) = (url.Port, "Host: some-machine.example");
        foreach (
            var request in new[]
            {
                "GET / HTTP/1.1",
                "GET /api/runs HTTP/1.1",
                "GET /app.js HTTP/1.1",
                "GET /?token=wrong HTTP/1.1",
                $"GET /api/runs?token={token} HTTP/1.1",
                "POST /api/runs HTTP/1.1",
            }
        )
            Assert.Equal(401, await Status(port, request, host, "Content-Length: 0"));
        Assert.Equal(401, await Status(port, "GET /api/runs HTTP/1.1", host, $"Authorization: Bearer {token[..^1]}"));
        Assert.Equal(200, await Status(port, "GET /api/runs HTTP/1.1", host, $"Authorization: Bearer {token}"));

        var (status, head, _) = await Send(port, $"GET {url.PathAndQuery} HTTP/1.1", host);
        Assert.Equal(302, status);
        Assert.Contains("Location: /\r\n", head);
        var cookie = head.Split("Set-Cookie: ")[1].Split("\r\n")[0];
        Assert.Contains("httponly", cookie, StringComparison.OrdinalIgnoreCase);
        Assert.Contains("samesite=strict", cookie, StringComparison.OrdinalIgnoreCase);
        Assert.Equal(200, await Status(port, "GET /api/runs HTTP/1.1", host, $"Cookie: {cookie.Split(';')[0]}"));
        Assert.Equal(
            403,
            await Status(
                port,
                "GET /api/runs HTTP/1.1",
                host,
                $"Cookie: {cookie.Split(';')[0]}",
                "Origin: http://elsewhere.example"
            )
        );

        var own = new Uri(Serve("--token", "my own, with a space"));
        Assert.Equal(401, await Status(own.Port, "GET /api/runs HTTP/1.1", $"Host: 127.0.0.1:{own.Port}"));
        Assert.Equal(
            200,
            await Status(
                own.Port,
                "GET /api/runs HTTP/1.1",
                $"Host: 127.0.0.1:{own.Port}",
                "Authorization: Bearer my own, with a space"
            )
        );
        var weak = Cli.Run(folder, "ui", "--host", "0.0.0.0", "--token", "1234", "--port", "0");
        Assert.Equal(2, weak.Exit);
        Assert.Contains("could be guessed", weak.Error);
    }

    [Fact]
    public async Task Server_asked_for_a_path_outside_the_store_refuses()
    {
        var artifacts = new LocalArtifacts(Path.Combine(folder, ".memopt/artifacts"));
        File.WriteAllText(Path.Combine(folder, "secret.txt"), Secret);
        File.WriteAllText(Path.Combine(folder, "fine.txt"), "what was stored");
        var link = artifacts.Put("adapter", Path.Combine(folder, "fine.txt"));
        // A record may name any path; it came from another machine, perhaps.
        using (
            var run = Store()
                .Begin(
                    new RunStart
                    {
                        Id = "run-1",
                        Experiment = "e",
                        Config = "{}",
                    }
                )
        )
            run.Link(link with { Path = Path.Combine(folder, "secret.txt") });
        var port = new Uri(Serve()).Port;
        var up = string.Concat(Enumerable.Repeat("../", 12));
        string[] ways =
        [
            $"{up}etc/passwd",
            "../secret.txt",
            "../../secret.txt",
            "../../../secret.txt",
            "/etc/passwd",
            Path.Combine(folder, "secret.txt"),
            "fine.txt/../../../../secret.txt",
            "..\\..\\secret.txt",
            "fine.txt\0",
            "file:///etc/passwd",
            "~/secret.txt",
        ];
        foreach (var way in ways)
        {
            foreach (
                var spelled in new[]
                {
                    way.Replace("\0", "%00").Replace('\\', '|'),
                    Uri.EscapeDataString(way),
                    Uri.EscapeDataString(Uri.EscapeDataString(way)),
                    way.Replace("..", "%2e%2e").Replace("\0", "%00").Replace('\\', '|'),
                }
            )
            {
                foreach (
                    var path in new[]
                    {
                        $"/{spelled}",
                        $"/api/{spelled}",
                        $"/api/artifacts/{spelled}",
                        $"/api/artifacts/{spelled}/file?path=fine.txt",
                        $"/api/artifacts/{link.Hash}/file?path={spelled}",
                        $"/api/artifacts/{link.Hash}/{spelled}",
                        $"/api/runs/{spelled}",
                        $"/api/runs/{spelled}/log",
                        $"/api/runs/run-1/{spelled}",
                    }
                )
                {
                    var (status, _, body) = await Send(port, $"GET {path} HTTP/1.1", $"Host: 127.0.0.1:{port}");
                    Assert.True(
                        status is 400 or 404
                            || (status is 200 or 500 && path.EndsWith("/log", StringComparison.Ordinal))
                            || (status == 200 && body.Contains("<title>memopt")),
                        $"{status} {path}"
                    );
                    Assert.False(body.Contains(Secret) || body.Contains("root:"), path);
                }
            }
        }
        // A hash is a hash, not a path: the object itself is no artifact.
        var content = artifacts.Files(link.Hash)[0].Hash;
        Assert.Equal(404, await Status(port, $"GET /api/artifacts/{content} HTTP/1.1", $"Host: 127.0.0.1:{port}"));
        Assert.Equal(
            404,
            await Status(
                port,
                $"GET /api/artifacts/../objects/{content[..2]}/{content} HTTP/1.1",
                $"Host: 127.0.0.1:{port}"
            )
        );
        var (found, head, served) = await Send(
            port,
            $"GET /api/artifacts/{link.Hash}/file?path=fine.txt HTTP/1.1",
            $"Host: 127.0.0.1:{port}"
        );
        Assert.Equal((200, "what was stored"), (found, served));
        Assert.Contains("Content-Disposition: attachment", head);
    }

    [Fact]
    public async Task Server_answers_the_page_with_the_values_of_the_commands()
    {
        var store = Store();
        var random = new Random(1);
        var values = Enumerable
            .Range(1, 5_000)
            .Select(step =>
                step is 1_234 ? 99
                : step is 4_000 ? double.NaN
                : random.NextDouble()
            )
            .ToList();
        foreach (var (id, rank) in new[] { ("a1", 8), ("b1", 16) })
        {
            using var run = store.Begin(
                new RunStart
                {
                    Id = id,
                    Experiment = "e",
                    Started = DateTimeOffset.UtcNow,
                    Config = $$"""{ "adapter": { "rank": {{rank}} } }""",
                    TotalSteps = 5_000,
                    Ledger = [new("weights", 100, "device", "10 × 10")],
                }
            );
            for (var i = 0; i < values.Count; i++)
                run.Append(
                    new MetricRow(i + 1, new Dictionary<string, double> { ["loss"] = values[i], ["odd name/%&?"] = i })
                );
            run.Append(new EvalRow(5_000, new Dictionary<string, double> { ["loss"] = 0.25 }));
            run.End(
                new Tracking.Outcome(RunStatus.Finished)
                {
                    Ended = DateTimeOffset.UtcNow,
                    Ledger = [new("weights", 100, "device", "10 × 10", 104)],
                }
            );
        }
        using (var log = store.AppendLog("a1"))
            log.Write("first\nsecond\nunfinished");
        var url = Serve();
        using var http = new HttpClient { BaseAddress = new(url) };
        async Task<JsonNode> Get(string path) => JsonNode.Parse(await http.GetStringAsync(path))!;

        var found = await Get("api/runs?filter=params.adapter.rank+%3E+8&columns=run_id,min(metrics.loss)");
        Assert.Equal("b1", (string?)found["runs"]!.AsArray().Single()!["runId"]);
        Assert.Equal(values.Where(double.IsFinite).Min(), (double)found["values"]![0]![1]!);
        var first = await Get("api/runs?limit=1");
        Assert.Equal(
            "a1",
            (string?)
                (await Get($"api/runs?limit=1&page={Uri.EscapeDataString((string)first["next"]!)}"))["runs"]![0]![
                    "runId"
                ]
        );
        Assert.Equal(14, (int)(await Get("api/runs?filter=metrics.loss+%3C%3C+1"))["problem"]!["position"]!);
        Assert.Contains("no_such", (string)(await Get("api/runs?columns=no_such"))["problem"]!["message"]!);

        var shown = await Get("api/runs/a1");
        Assert.Equal(104, (int)shown["ledger"]![0]!["measured"]!);
        Assert.Equal("8", (string?)shown["params"]!["adapter.rank"]);
        Assert.Equal(0.25, (double)shown["evals"]![0]!["values"]!["loss"]!);
        Assert.Equal(HttpStatusCode.NotFound, (await http.GetAsync("api/runs/none")).StatusCode);

        var curves = await Get(
            $"api/runs/a1/points?metric=loss&after=&metric={Uri.EscapeDataString("odd name/%&?")}&after=4997&most=200"
        );
        var loss = curves["loss"]!;
        Assert.Equal(5_000, (int)loss["count"]!);
        Assert.InRange(loss["steps"]!.AsArray().Count, 100, 200);
        var at = loss["steps"]!.AsArray().Select(step => (int)step!).ToList();
        Assert.Equal(at.Order(), at);
        Assert.Equal(5_000, at[^1]);
        Assert.Equal(99, (double)loss["values"]![at.IndexOf(1_234)]!);
        Assert.Equal("NaN", (string?)loss["values"]![at.IndexOf(4_000)]);
        Assert.Contains(values.IndexOf(values.Where(double.IsFinite).Min()) + 1, at);
        Assert.Equal([4_998, 4_999, 5_000], curves["odd name/%&?"]!["steps"]!.AsArray().Select(step => (int)step!));

        var compared = await Get("api/compare?run=a1&run=b1");
        Assert.Equal(
            ["adapter.rank"],
            compared["differences"]!
                .AsArray()
                .Where(one => (string?)one!["section"] == "config")
                .Select(one => (string)one!["key"]!)
        );
        var text = await Get("api/runs/a1/log");
        Assert.Equal("first\nsecond\n", (string?)text["text"]);
        using (var log = store.AppendLog("a1"))
            log.Write(" line\n");
        Assert.Equal("unfinished line\n", (string?)(await Get($"api/runs/a1/log?after={text["next"]}"))["text"]);
    }

    [Fact]
    public void Downsampled_curve_keeps_the_minimum_and_maximum_of_every_stretch()
    {
        // By the definition: every stretch keeps its least and its greatest, in order.
        var random = new Random(7);
        var points = Enumerable.Range(0, 10_007).Select(i => new Point(i, random.NextDouble(), i)).ToList();
        var curve = Curve.Downsample(points, 301);
        Assert.InRange(curve.Steps.Count, 200, 301);
        foreach (var stretch in points.Chunk(10_007 / 100 + 1).Select(chunk => chunk.ToList()))
        {
            // A stretch of the thinned curve is no longer than these, so a window of two of them holds its own
            // extremes.
            var window = curve
                .Values.Where(
                    (_, i) => curve.Steps[i] >= stretch[0].Step - 102 && curve.Steps[i] <= stretch[^1].Step + 102
                )
                .ToList();
            Assert.True(
                window.Min() <= stretch.Min(point => point.Value) && window.Max() >= stretch.Max(point => point.Value)
            );
        }
        Assert.Equal(
            points.Take(300).Select(point => point.Value),
            Curve.Downsample(points.Take(300).ToList(), 300).Values
        );
    }

    [Fact]
    public void Ui_starts_before_the_first_training_and_ends_when_interrupted()
    {
        var url = new Uri(Serve());
        Assert.Equal("127.0.0.1", url.Host);
        var taken = Cli.Run(folder, "ui", "--port", $"{url.Port}");
        Assert.Equal(1, taken.Exit);
        Assert.Contains($"127.0.0.1:{url.Port} cannot be listened on", taken.Error);
        Assert.Contains("--port 0", taken.Error);
        Assert.DoesNotContain(" at ", taken.Error);
        var nowhere = Cli.Run(folder, "ui", "--host", "some-name");
        Assert.Contains("--host takes an address", nowhere.Error);
        var json = JsonNode.Parse(Serve("--json"))!;
        Assert.Equal($"http://127.0.0.1:{(int)json["port"]!}/", (string?)json["url"]);
        Cli.Interrupt(started[0]);
        Assert.True(started[0].WaitForExit(Cli.Patience));
        Assert.Equal(0, started[0].ExitCode);
    }

    [Fact]
    public void Page_in_a_browser_shows_runs_while_one_trains()
    {
        var project = Cli.NewProject();
        string[] ids =
        [
            .. new[] { "1e-3", "2e-3" }.Select(rate =>
                (string)
                    Cli.Run(project, "run", "--from-start", "--json", "--set", $"train.learningRate={rate}").Json[
                        "runId"
                    ]!
            ),
        ];
        var store = new LiteRunStore(Path.Combine(project, ".memopt/store"));
        using (
            var odd = store.Begin(
                new RunStart
                {
                    Id = "odd",
                    Experiment = "<img src=x onerror=alert(1)>",
                    Started = DateTimeOffset.UtcNow,
                    Config = "{}",
                    Tags = new Dictionary<string, string> { ["mlflow.runName"] = "<script>alert(2)</script>" },
                }
            )
        )
        {
            // Names that no address holds together, and values whose difference is no number.
            odd.Append(
                new MetricRow(
                    1,
                    Enumerable.Range(0, 90).ToDictionary(i => $"{i:d2} {new string('m', 150)}", i => (double)i)
                )
            );
            odd.Append(
                new MetricRow(1, new Dictionary<string, double> { ["loss"] = double.NaN, ["grad_norm"] = -1e308 })
            );
            odd.Append(new MetricRow(2, new Dictionary<string, double> { ["grad_norm"] = 1e308 }));
        }
        using (
            var failed = store.Begin(
                new RunStart
                {
                    Id = "failed",
                    Experiment = new string('x', 200),
                    Started = DateTimeOffset.UtcNow,
                    Config = "{}",
                }
            )
        )
            failed.End(new Tracking.Outcome(RunStatus.Failed, "out of memory") { Ended = DateTimeOffset.UtcNow });
        // So many that it does not end by itself, however long the page is looked at.
        var training = Keep(Cli.Start(project, "run", "--from-start", "--set", "train.epochs=100000"));
        _ = training.StandardOutput.ReadToEndAsync();
        Cli.Await(training, "step 1 / ");
        _ = training.StandardError.ReadToEndAsync();
        var running = store.Find(new RunQuery { Status = RunStatus.Running }).Runs.Single().Start.Id;

        using var browser = Process.Start(
            new ProcessStartInfo(
                "node",
                [
                    Path.Combine(Cli.Repository, "tests/oracles/page.mjs"),
                    Serve(project, []),
                    string.Join(',', ids),
                    running,
                ]
            )
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var fault = browser.StandardError.ReadToEndAsync();
        var last = "";
        while (browser.StandardOutput.ReadLine() is { } said)
        {
            if (said == "stop it")
                Cli.Interrupt(training);
            last = said;
        }
        browser.WaitForExit();
        Assert.True(last == "ok", fault.Result);
        Assert.Equal(0, browser.ExitCode);
    }

    private LiteRunStore Store() => new(Path.Combine(folder, ".memopt/store"));

    private string Serve(params string[] options) => Serve(folder, options);

    /// <summary>Starts the server on any free port; what it prints when it listens.</summary>
    private string Serve(string where, string[] options)
    {
        var process = Keep(Cli.Start(where, ["ui", "--port", "0", .. options]));
        var fault = process.StandardError.ReadToEndAsync();
        var text = new StringBuilder();
        while (process.StandardOutput.ReadLine() is { } line)
        {
            text.AppendLine(line);
            if (line.StartsWith("http", StringComparison.Ordinal) || line == "}")
                return text.ToString().Trim();
        }
        throw new InvalidOperationException(fault.Result);
    }

    private Process Keep(Process process)
    {
        started.Add(process);
        return process;
    }

    private static async Task<int> Status(int port, string request, params string[] headers) =>
        (await Send(port, request, headers)).Status;

    /// <summary>A request byte for byte, as no client library would send it.</summary>
    private static async Task<(int Status, string Head, string Body)> Send(
        int port,
        string request,
        params string[] headers
    )
    {
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, port);
        using var stream = client.GetStream();
        await stream.WriteAsync(
            Encoding.ASCII.GetBytes(string.Join("\r\n", [request, .. headers, "Connection: close", "", ""]))
        );
        using var reader = new StreamReader(stream, Encoding.UTF8);
        var answer = await reader.ReadToEndAsync();
        var end = answer.IndexOf("\r\n\r\n", StringComparison.Ordinal);
        return (int.Parse(answer.Split(' ')[1]), answer[..(end + 2)], Body(answer[(end + 4)..], answer[..end]));
    }

    /// <summary>Chunks put together.</summary>
    private static string Body(string text, string head)
    {
        if (!head.Contains("Transfer-Encoding: chunked", StringComparison.OrdinalIgnoreCase))
            return text;
        var whole = new StringBuilder();
        foreach (var line in text.Split("\r\n"))
            whole.Append(int.TryParse(line, System.Globalization.NumberStyles.HexNumber, null, out _) ? "" : line);
        return whole.ToString();
    }
}
