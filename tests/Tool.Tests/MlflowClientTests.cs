using System.Diagnostics;
using System.Text.Json.Nodes;
using Memopt.Tool.Server.Mlflow;
using Memopt.Tracking;

namespace Memopt.Tool.Tests;

/// <summary>MLflow's clients at work: one that others wrote, many at once, and a server that is killed under
/// them.</summary>
public sealed class MlflowClientTests
{
    private const long Start = 1764028800000;

    [Fact]
    public void Npm_client_logs_and_queries_a_run()
    {
        using var server = new MlflowServer();
        using var node = Process.Start(
            new ProcessStartInfo("node", ["mlflow.mjs", server.Url])
            {
                WorkingDirectory = Path.Combine(Cli.Repository, "tests", "oracles"),
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var client = Cli.Wait(node);
        Assert.True(client.Exit == 0, client.Error);
        var answers = client.Json;
        var ids = answers["ids"]!.AsArray().Select(id => (string)id!).ToList();
        Assert.Equal(
            ("from-node", "nlp"),
            ((string)answers["experiment"]!["name"]!, (string)answers["experiment"]!["tags"]![0]!["value"]!)
        );
        Assert.Equal("""["Default","from-node"]""", answers["listed"]!.ToJsonString());
        Assert.Equal(
            (400, "RESOURCE_ALREADY_EXISTS"),
            ((int)answers["taken"]!["status"]!, (string)answers["taken"]!["data"]!["error_code"]!)
        );
        Assert.Equal(
            (400, "INVALID_PARAMETER_VALUE"),
            ((int)answers["changed"]!["status"]!, (string)answers["changed"]!["data"]!["error_code"]!)
        );
        Assert.Equal(
            (400, "INVALID_PARAMETER_VALUE"),
            ((int)answers["misspelled"]!["status"]!, (string)answers["misspelled"]!["data"]!["error_code"]!)
        );
        Assert.Equal("RUNNING", (string?)answers["created"]!["info"]!["status"]);
        Assert.Equal(
            ("FINISHED", Start + 60000),
            ((string)answers["updated"]!["status"]!, (long)answers["updated"]!["end_time"]!)
        );
        Assert.Equal(
            $$"""[{"key":"loss","value":0.125,"timestamp":{{Start + 5}},"step":5},{"key":"val/acc","value":0.75,"timestamp":{{Start + 5}},"step":5}]""",
            answers["run"]!["data"]!["metrics"]!.ToJsonString()
        );
        Assert.Equal(
            """[{"key":"lr","value":"0.001"},{"key":"optimizer","value":"adamw"}]""",
            answers["run"]!["data"]!["params"]!.ToJsonString()
        );
        Assert.Equal(
            ["mlflow.runName=first", "note=a \"quoted\" ü", "stage=test"],
            answers["run"]!["data"]!["tags"]!.AsArray().Select(tag => $"{tag!["key"]}={tag["value"]}")
        );
        Assert.Equal(
            [1, 1 / 2.0, 1 / 3.0, 1 / 4.0, 1 / 5.0, 0.125],
            answers["history"]!.AsArray().Select(point => (double)point!["value"]!)
        );
        Assert.Equal(
            [0, 0, 1, 0, 0, 0],
            answers["found"]!.AsObject().Select(filter => ids.IndexOf((string)filter.Value!.AsArray().Single()!))
        );
        Assert.Equal([ids[1], ids[0], null], answers["pages"]!.AsArray().Select(page => (string?)page));
        Assert.Equal("""[{"path":"model/notes.txt","is_dir":false,"file_size":5}]""", answers["files"]!.ToJsonString());
        Assert.Equal(
            (ids[0], ids[1]),
            ((string)answers["active"]!.AsArray().Single()!, (string)answers["deleted"]!.AsArray().Single()!)
        );
        Assert.Equal("""["Default"]""", answers["gone"]!.ToJsonString());
        Assert.Equal("""["Default","renamed"]""", answers["back"]!.ToJsonString());
    }

    [Fact]
    public async Task Server_killed_keeps_acknowledged_values_and_takes_more_after_restart()
    {
        using var server = new MlflowServer();
        var experiment = await server.NewExperiment("kept");
        var runs = new[]
        {
            await server.NewRun(experiment),
            await server.NewRun(experiment),
            await server.NewRun(experiment),
        };
        await server.Done(
            "runs/update",
            new
            {
                run_id = runs[2],
                status = "FINISHED",
                end_time = Start + 1,
            }
        );
        await server.Send(
            HttpMethod.Put,
            $"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{runs[0]}/artifacts/note",
            new StringContent("kept")
        );
        var acknowledged = new int[2];
        var clients = Enumerable
            .Range(0, 2)
            .Select(client =>
                Task.Run(async () =>
                {
                    try
                    {
                        for (var step = 0; ; step++)
                        {
                            var answer = await server.Post(
                                "runs/log-batch",
                                new
                                {
                                    run_id = runs[client],
                                    metrics = new[]
                                    {
                                        new
                                        {
                                            key = "loss",
                                            value = (double)step,
                                            timestamp = Start + step,
                                            step,
                                        },
                                    },
                                    tags = new[] { new { key = "step", value = $"{step}" } },
                                }
                            );
                            Assert.Equal(200, answer.Status);
                            Volatile.Write(ref acknowledged[client], step + 1);
                        }
                    }
                    catch (Exception e) when (e is HttpRequestException or IOException)
                    {
                        // The server is gone.
                    }
                })
            )
            .ToList();
        while (acknowledged.Any(count => count < 200) && !clients.Exists(client => client.IsCompleted))
            await Task.Delay(5);
        server.Kill();
        await Task.WhenAll(clients);
        server.Start();

        for (var client = 0; client < 2; client++)
        {
            var history = (await server.Got($"metrics/get-history?run_id={runs[client]}&metric_key=loss"))[
                "metrics"
            ]!.AsArray();
            // One more may have been written whose answer did not get through.
            Assert.InRange(history.Count, acknowledged[client], acknowledged[client] + 1);
            Assert.Equal(Enumerable.Range(0, history.Count), history.Select(point => (int)point!["step"]!));
            var run = (await server.Got($"runs/get?run_id={runs[client]}"))["run"]!;
            Assert.Equal("KILLED", (string?)run["info"]!["status"]);
            Assert.InRange(
                int.Parse(
                    run["data"]!["tags"]!.AsArray().Single(tag => (string)tag!["key"]! == "step")!["value"]!.ToString()
                ),
                acknowledged[client] - 1,
                history.Count - 1
            );
            // The client that goes on knows nothing of it.
            await server.Done(
                "runs/log-metric",
                new
                {
                    run_id = runs[client],
                    key = "loss",
                    value = 0,
                    timestamp = Start,
                    step = 100_000,
                }
            );
            run = (await server.Got($"runs/get?run_id={runs[client]}"))["run"]!;
            Assert.Equal("RUNNING", (string?)run["info"]!["status"]);
            Assert.Equal(
                history.Count + 1,
                (await server.Got($"metrics/get-history?run_id={runs[client]}&metric_key=loss"))["metrics"]!
                    .AsArray()
                    .Count
            );
        }
        Assert.Equal("FINISHED", (string?)(await server.Got($"runs/get?run_id={runs[2]}"))["run"]!["info"]!["status"]);
        Assert.Equal(
            experiment,
            (string?)(await server.Got("experiments/get-by-name?experiment_name=kept"))["experiment"]!["experiment_id"]
        );
        Assert.Equal(
            "kept",
            (string?)
                (
                    await server.Send(
                        HttpMethod.Get,
                        $"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{runs[0]}/artifacts/note"
                    )
                ).Body
        );
    }

    [Fact]
    public async Task Server_with_a_token_accepts_it_as_MLflow_clients_send_it()
    {
        const string token = "a-token-for-this-test";
        using var server = new MlflowServer("--token", token);
        Assert.Equal(401, (await server.Get("experiments/get?experiment_id=0")).Status);
        server.Bearer = token;
        var run = await server.NewRun("0");
        var address = await server.Done("artifacts/presigned-upload-url", new { run_id = run, path = "x" });
        using var http = new HttpClient();
        using var put = new HttpRequestMessage(HttpMethod.Put, (string)address["presigned_url"]!)
        {
            Content = new StringContent("x"),
        };
        put.Headers.TryAddWithoutValidation("Authorization", (string)address["headers"]!["Authorization"]!);
        Assert.True((await http.SendAsync(put)).IsSuccessStatusCode);
        Assert.Equal(401, (int)(await http.GetAsync((string)address["presigned_url"]!)).StatusCode);
    }

    [Fact]
    public async Task Server_with_many_clients_at_once_records_every_value()
    {
        using var server = new MlflowServer();
        var experiment = await server.NewExperiment();
        var shared = await server.NewRun(experiment);
        const int clients = 12,
            steps = 40;
        await Parallel.ForEachAsync(
            Enumerable.Range(0, clients),
            new ParallelOptions { MaxDegreeOfParallelism = clients },
            async (client, _) =>
            {
                var own = await server.NewRun(experiment);
                for (var step = 0; step < steps; step++)
                {
                    await server.Done(
                        "runs/log-metric",
                        new
                        {
                            run_id = own,
                            key = "loss",
                            value = step,
                            timestamp = Start,
                            step,
                        }
                    );
                    await server.Done(
                        "runs/log-metric",
                        new
                        {
                            run_id = shared,
                            key = $"loss{client}",
                            value = step,
                            timestamp = Start,
                            step,
                        }
                    );
                    if (step % 20 == 0)
                        await server.Done(
                            "runs/search",
                            new { experiment_ids = new[] { experiment }, filter = "metrics.loss >= 0" }
                        );
                }
                await server.NewExperiment($"client {client}");
                await server.Done("runs/update", new { run_id = own, status = "FINISHED" });
            }
        );
        var found = (
            await server.Done(
                "runs/search",
                new { experiment_ids = new[] { experiment }, filter = "status = 'FINISHED'" }
            )
        )["runs"]!.AsArray();
        Assert.Equal(clients, found.Count);
        Assert.All(found, run => Assert.Equal(steps - 1, (int)run!["data"]!["metrics"]![0]!["value"]!));
        for (var client = 0; client < clients; client++)
            Assert.Equal(steps, server.Store.Points(shared, $"loss{client}").Count);
        var experiments = (await server.Done("experiments/search", new { filter = "name LIKE 'client %'" }))[
            "experiments"
        ]!.AsArray();
        Assert.Equal(clients, experiments.Select(one => (string)one!["experiment_id"]!).Distinct().Count());
    }

    [Fact]
    public void Open_writers_stay_below_their_limit()
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        using var store = new LiteRunStore(folder);
        var clock = new Clock();
        using var open = new OpenRuns(store, clock);
        for (var i = 0; i < 260; i++)
        {
            clock.Advance(TimeSpan.FromMilliseconds(1));
            open.Create(
                new RunStart
                {
                    Id = $"r{i}",
                    Experiment = "e",
                    Started = DateTimeOffset.UtcNow,
                    Config = "{}",
                }
            );
            open.Write(
                $"r{i}",
                run => run.Writer.Append(new MetricRow(5, new Dictionary<string, double> { ["loss"] = i }))
            );
        }
        open.Write(
            "r259",
            run =>
            {
                run.Writer.End(new Tracking.Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
                run.Status = RunStatus.Finished;
            }
        );
        clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(4, store.Find(new RunQuery { Status = RunStatus.Interrupted, Limit = 1000 }).Runs.Count);
        Assert.Throws<TrackingException>(() => store.Remove("r259"));
        clock.Advance(TimeSpan.FromSeconds(10));
        store.Remove("r259"); // its writer is closed

        // What was closed to make room goes on from where it was.
        open.Write("r0", run => run.Writer.Append(new MetricRow(1, new Dictionary<string, double> { ["loss"] = 1 })));
        Assert.Equal(RunStatus.Running, store.Get("r0")!.Status);
        Assert.Equal([1, 5], store.Points("r0", "loss").Select(point => point.Step));
        clock.Advance(TimeSpan.FromDays(2));
        Assert.Empty(store.Find(new RunQuery { Status = RunStatus.Running }).Runs);
        Directory.Delete(folder, recursive: true);
    }

    private sealed class Clock : TimeProvider
    {
        private Action? tick;
        private long now = 1;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => now;

        public void Advance(TimeSpan time)
        {
            now += time.Ticks;
            if (time >= TimeSpan.FromSeconds(1))
                tick!();
        }

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            tick = () => callback(state);
            return System.CreateTimer(_ => { }, null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        }
    }
}
