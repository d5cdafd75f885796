using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Tracking;

namespace Memopt.Tool.Tests;

/// <summary>MLflow's REST interface, call by call, over a socket: the shapes and refusals of
/// mlflow/protos/service.proto and of its server's handlers and validation.
/// </summary>
public sealed class MlflowTests(MlflowServer server) : IClassFixture<MlflowServer>
{
    private const string Invalid = "INVALID_PARAMETER_VALUE",
        Missing = "RESOURCE_DOES_NOT_EXIST";
    private const long Start = 1764028800000;

    [Fact]
    public async Task Experiments_create_returns_an_id_and_refuses_duplicates()
    {
        var made = await server.Done(
            "experiments/create",
            new
            {
                name = "created",
                artifact_location = "",
                tags = new[] { Pair("team", "nlp") },
            }
        );
        Shape(made, "experiment_id");
        Assert.Equal(("created", "nlp"), await Named((string)made["experiment_id"]!));
        Refused(await server.Post("experiments/create", new { name = "created" }), 400, "RESOURCE_ALREADY_EXISTS");
        Refused(await server.Post("experiments/create", new { name = "" }), 400, Invalid, "'name'");
        Refused(await server.Post("experiments/create", new { name = new string('x', 501) }), 400, Invalid, "500");
        Refused(
            await server.Post("experiments/create", new { name = "place", artifact_location = "s3://bucket#part" }),
            400,
            Invalid,
            "artifact_location"
        );
        Refused(await server.Post("experiments/create", new { name = 5 }), 400, Invalid, "'name'");
        foreach (
            var body in new[]
            {
                "not json",
                "[]",
                "{\"name\":\"\\ud800\"}",
                "{\"\\ud800\":1}",
                "{\"name\":{}}",
                "{\"name\":\"a\",\"name\":\"b\"}",
            }
        )
            Refused(await server.Post("experiments/create", body), 400, Invalid);

        async Task<(string?, string?)> Named(string id)
        {
            var experiment = (await server.Got($"experiments/get?experiment_id={id}"))["experiment"]!;
            return ((string?)experiment["name"], (string?)experiment["tags"]![0]!["value"]);
        }
    }

    [Fact]
    public async Task Experiments_search_filters_orders_and_pages()
    {
        foreach (var letter in "abc")
            await server.Done(
                "experiments/create",
                new { name = $"search-{letter}", tags = new[] { Pair("letter", letter.ToString()) } }
            );
        var answer = await server.Done(
            "experiments/search",
            new
            {
                filter = "name LIKE 'search-%'",
                order_by = new[] { "name DESC" },
                max_results = 2,
            }
        );
        Shape(answer, "experiments", "next_page_token");
        Shape(
            answer["experiments"]![0]!,
            "experiment_id",
            "name",
            "artifact_location",
            "lifecycle_stage",
            "last_update_time",
            "creation_time",
            "tags"
        );
        Assert.Equal(["search-c", "search-b"], Names(answer));
        answer = await server.Done(
            "experiments/search",
            new
            {
                filter = "name LIKE 'search-%'",
                order_by = new[] { "name DESC" },
                max_results = 2,
                page_token = (string)answer["next_page_token"]!,
            }
        );
        Shape(answer, "experiments");
        Assert.Equal(["search-a"], Names(answer));
        Assert.Equal(
            ["search-b"],
            Names(
                await server.Got(
                    "experiments/search?max_results=5&filter="
                        + Uri.EscapeDataString("tags.letter = 'b' AND creation_time > 0")
                )
            )
        );
        Assert.Contains("Default", Names(await server.Got("experiments/list?view_type=ALL")));
        Refused(await server.Post("experiments/search", new { max_results = 0 }), 400, Invalid);
        Refused(await server.Post("experiments/search", new { max_results = 50_001 }), 400, Invalid);
        Refused(await server.Post("experiments/search", new { filter = "nonsense = 1" }), 400, Invalid);
        Refused(await server.Post("experiments/search", new { page_token = "nonsense" }), 400, Invalid);
        Refused(await server.Post("experiments/search", new { view_type = "SOME" }), 400, Invalid);

        static IEnumerable<string> Names(JsonNode answer) =>
            answer["experiments"]!.AsArray().Select(experiment => (string)experiment!["name"]!);
    }

    [Fact]
    public async Task Experiments_get_and_get_by_name_return_the_same_experiment()
    {
        var id = await server.NewExperiment("by name");
        foreach (
            var path in new[]
            {
                $"experiments/get?experiment_id={id}",
                "experiments/get-by-name?experiment_name=by%20name",
            }
        )
        {
            var answer = await server.Got(path);
            Shape(answer, "experiment");
            Assert.Equal(
                (id, "by name", "active"),
                (
                    (string)answer["experiment"]!["experiment_id"]!,
                    (string)answer["experiment"]!["name"]!,
                    (string)answer["experiment"]!["lifecycle_stage"]!
                )
            );
            Assert.True((long)answer["experiment"]!["creation_time"]! > Start);
        }
        Assert.Equal("Default", (string?)(await server.Got("experiments/get?experiment_id=0"))["experiment"]!["name"]);
        Refused(await server.Get("experiments/get?experiment_id=99999"), 404, Missing);
        Refused(await server.Get("experiments/get"), 400, Invalid, "experiment_id");
        Assert.Equal(
            "Default",
            (string?)(await server.Got($"experiments/get?experiment_id=0&experiment_id={id}"))["experiment"]!["name"]
        );
        Refused(await server.Get("experiments/get-by-name?experiment_name=none"), 404, Missing);
    }

    [Fact]
    public async Task Experiments_delete_restore_update_and_set_tag_change_the_experiment()
    {
        var id = await server.NewExperiment("before");
        var run = await server.NewRun(id);
        Shape(await server.Done("experiments/update", new { experiment_id = id, new_name = "after" }));
        Shape(
            await server.Done(
                "experiments/set-experiment-tag",
                new
                {
                    experiment_id = id,
                    key = "k",
                    value = "v",
                }
            )
        );
        Assert.Equal(("after", 1), await Known());
        Shape(await server.Done("experiments/delete-experiment-tag", new { experiment_id = id, key = "k" }));
        Assert.Equal(("after", 0), await Known());
        Refused(
            await server.Post("experiments/delete-experiment-tag", new { experiment_id = id, key = "k" }),
            404,
            Missing
        );
        Refused(
            await server.Post("experiments/update", new { experiment_id = id, new_name = "Default" }),
            400,
            "RESOURCE_ALREADY_EXISTS"
        );

        // The name is free again; what was recorded under it stays where it is.
        var again = await server.NewExperiment("before");
        Assert.NotEqual(id, again);
        var other = await server.NewRun(again);
        Assert.Equal([run], await Found(id));
        Assert.Equal([other], await Found(again));

        Shape(await server.Done("experiments/delete", new { experiment_id = id }));
        Assert.Empty(await Found(id));
        Assert.Equal([run], await Found(id, "DELETED_ONLY"));
        Assert.Equal(
            "deleted",
            (string?)(await server.Got($"runs/get?run_id={run}"))["run"]!["info"]!["lifecycle_stage"]
        );
        Assert.DoesNotContain(server.Store.Find(new RunQuery { Limit = 1000 }).Runs, one => one.Start.Id == run);
        Refused(await server.Post("experiments/delete", new { experiment_id = id }), 404, Missing);
        Refused(
            await server.Post("experiments/update", new { experiment_id = id, new_name = "gone" }),
            500,
            "INVALID_STATE"
        );
        Refused(
            await server.Post(
                "experiments/set-experiment-tag",
                new
                {
                    experiment_id = id,
                    key = "k",
                    value = "v",
                }
            ),
            400,
            Invalid,
            "active"
        );
        Refused(await server.Post("runs/create", new { experiment_id = id }), 400, Invalid, "active");
        Shape(await server.Done("experiments/restore", new { experiment_id = int.Parse(id) }));
        Refused(await server.Post("experiments/restore", new { experiment_id = id }), 404, Missing);
        Assert.Equal([run], await Found(id));
        foreach (var call in new[] { "delete", "restore", "update", "set-experiment-tag", "delete-experiment-tag" })
            Refused(
                await server.Post(
                    "experiments/" + call,
                    new
                    {
                        experiment_id = "99999",
                        new_name = "x",
                        key = "k",
                        value = "v",
                    }
                ),
                404,
                Missing
            );

        async Task<(string, int)> Known()
        {
            var experiment = (await server.Got($"experiments/get?experiment_id={id}"))["experiment"]!;
            return ((string)experiment["name"]!, experiment["tags"]!.AsArray().Count);
        }
    }

    [Fact]
    public async Task Runs_create_returns_the_run()
    {
        var experiment_id = await server.NewExperiment();
        var answer = await server.Done(
            "runs/create",
            new
            {
                experiment_id,
                user_id = "ann",
                run_name = "mine",
                start_time = Start.ToString(),
                tags = new[] { Pair("a", "1"), Pair("mlflow.parentRunId", "p") },
            }
        );
        Shape(answer, "run");
        Shape(answer["run"]!, "info", "data", "inputs", "outputs");
        var info = answer["run"]!["info"]!;
        Shape(
            info,
            "run_id",
            "run_uuid",
            "run_name",
            "experiment_id",
            "user_id",
            "status",
            "start_time",
            "artifact_uri",
            "lifecycle_stage"
        );
        Assert.Equal(
            ("mine", experiment_id, "ann", "RUNNING", Start, "active"),
            (
                (string)info["run_name"]!,
                (string)info["experiment_id"]!,
                (string)info["user_id"]!,
                (string)info["status"]!,
                (long)info["start_time"]!,
                (string)info["lifecycle_stage"]!
            )
        );
        Assert.Equal($"mlflow-artifacts:/{experiment_id}/{info["run_id"]}/artifacts", (string?)info["artifact_uri"]);
        Assert.Equal(["a=1", "mlflow.parentRunId=p", "mlflow.runName=mine"], Pairs(answer["run"]!["data"]!["tags"]!));
        Assert.Equal(
            "ann",
            (string?)
                (
                    await server.Done(
                        "runs/create",
                        new
                        {
                            experiment_id,
                            user_id = "ann",
                            tags = new[] { Pair("mlflow.user", "bob") },
                        }
                    )
                )["run"]!["info"]!["user_id"]
        );
        Assert.Equal(
            "bob",
            (string?)
                (await server.Done("runs/create", new { experiment_id, tags = new[] { Pair("mlflow.user", "bob") } }))[
                    "run"
                ]!["info"]!["user_id"]
        );
        Assert.Equal("p", server.Store.Get((string)info["run_id"]!)!.Start.Parent!.Id);
        // What was answered is what is stored.
        Assert.True(JsonNode.DeepEquals(answer["run"], (await server.Got($"runs/get?run_id={info["run_id"]}"))["run"]));
        Assert.Equal("0", (string?)(await server.Done("runs/create", new { }))["run"]!["info"]!["experiment_id"]);
        Refused(await server.Post("runs/create", new { experiment_id = "99999" }), 404, Missing);
        Refused(
            await server.Post(
                "runs/create",
                new
                {
                    experiment_id,
                    run_name = "x",
                    tags = new[] { Pair("mlflow.runName", "y") },
                }
            ),
            400,
            Invalid
        );
        Refused(
            await server.Post("runs/create", new { experiment_id, start_time = "soon" }),
            400,
            Invalid,
            "start_time"
        );
        Refused(
            await server.Post("runs/create", new { experiment_id, tags = new[] { Pair("memopt.deleted", "1") } }),
            400,
            Invalid,
            "reserved"
        );
    }

    [Fact]
    public async Task Runs_get_returns_info_data_and_inputs()
    {
        var run = await server.NewRun(await server.NewExperiment());
        // The highest step counts, then the latest time, then the greatest value.
        foreach (
            var (key, value, timestamp, step) in new[]
            {
                ("m", 9.0, 50, 1),
                ("m", 1.0, 10, 2),
                ("m", 3.0, 20, 2),
                ("m", 2.0, 20, 2),
                ("m", 5.0, 15, 2),
            }
        )
            await server.Done(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key,
                    value,
                    timestamp,
                    step,
                }
            );
        var got = await server.Got($"runs/get?run_uuid={run}");
        Shape(got["run"]!["data"]!, "metrics", "params", "tags");
        Assert.Equal(
            """[{"key":"m","value":3,"timestamp":20,"step":2}]""",
            got["run"]!["data"]!["metrics"]!.ToJsonString()
        );
        Assert.Equal(run, (string?)(await server.Got($"runs/get?run_id=&run_uuid={run}"))["run"]!["info"]!["run_id"]);
        Refused(await server.Get($"runs/get?run_id={run[..8]}"), 404, Missing);
        Refused(await server.Get("runs/get"), 400, Invalid, "run_id");
    }

    [Fact]
    public async Task Runs_update_changes_status_name_and_end_time()
    {
        var run = await server.NewRun(await server.NewExperiment());
        var answer = await server.Done(
            "runs/update",
            new
            {
                run_id = run,
                status = "FINISHED",
                end_time = Start + 5000,
                run_name = "new name",
            }
        );
        Shape(answer, "run_info");
        Shape(
            answer["run_info"]!,
            "run_id",
            "run_uuid",
            "run_name",
            "experiment_id",
            "user_id",
            "status",
            "start_time",
            "end_time",
            "artifact_uri",
            "lifecycle_stage"
        );
        Assert.Equal(
            ("FINISHED", Start + 5000, "new name"),
            (
                (string)answer["run_info"]!["status"]!,
                (long)answer["run_info"]!["end_time"]!,
                (string)answer["run_info"]!["run_name"]!
            )
        );
        // Without another time it ended when it ended; a time alone moves the end.
        Assert.Equal(
            Start + 5000,
            (long)(await server.Done("runs/update", new { run_id = run, status = "FAILED" }))["run_info"]!["end_time"]!
        );
        answer = await server.Done("runs/update", new { run_id = run, end_time = Start + 6000 });
        Assert.Equal(
            ("FAILED", Start + 6000),
            ((string)answer["run_info"]!["status"]!, (long)answer["run_info"]!["end_time"]!)
        );
        Assert.Equal(
            "FINISHED",
            (string?)(await server.Done("runs/update", new { run_id = run, status = 3 }))["run_info"]!["status"]
        );
        // A run that has ended takes more, and may go on.
        await server.Done(
            "runs/log-metric",
            new
            {
                run_id = run,
                key = "late",
                value = 1,
                timestamp = Start,
                step = 7,
            }
        );
        Assert.Equal("FINISHED", (string?)(await server.Got($"runs/get?run_id={run}"))["run"]!["info"]!["status"]);
        answer = await server.Done("runs/update", new { run_id = run, status = "RUNNING" });
        Assert.Equal("RUNNING", (string?)answer["run_info"]!["status"]);
        Assert.Null(answer["run_info"]!["end_time"]);
        foreach (var (status, meant) in new[] { ("FAILED", RunStatus.Failed), ("KILLED", RunStatus.Stopped) })
        {
            Assert.Equal(
                status,
                (string?)(await server.Done("runs/update", new { run_id = run, status }))["run_info"]!["status"]
            );
            Assert.Equal(meant, server.Store.Get(run)!.Status);
        }
        Assert.Equal(7, server.Store.Get(run)!.Metrics["late"].LastStep);
        Refused(await server.Post("runs/update", new { run_id = run, status = "DONE" }), 400, Invalid);
        Refused(await server.Post("runs/update", new { run_id = "none", status = "FAILED" }), 404, Missing);
    }

    [Fact]
    public async Task Runs_delete_restore_and_log_calls_change_the_run()
    {
        var experiment = await server.NewExperiment();
        var run = await server.NewRun(experiment);
        Shape(
            await server.Done(
                "runs/set-tag",
                new
                {
                    run_uuid = run,
                    key = "k",
                    value = "v",
                }
            )
        );
        Shape(
            await server.Done(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = "lr",
                    value = "1e-3",
                }
            )
        );
        Shape(
            await server.Done(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = "lr",
                    value = "1e-3",
                }
            )
        );
        Shape(
            await server.Done(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key = "loss",
                    value = "Infinity",
                    timestamp = Start.ToString(),
                    step = "3",
                }
            )
        );
        Shape(
            await server.Done(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key = "acc",
                    value = 0.5,
                    timestamp = Start,
                }
            )
        );
        var data = (await server.Got($"runs/get?run_id={run}"))["run"]!["data"]!;
        Assert.Equal(
            $$"""[{"key":"acc","value":0.5,"timestamp":{{Start}},"step":0},{"key":"loss","value":"Infinity","timestamp":{{Start}},"step":3}]""",
            data["metrics"]!.ToJsonString()
        );
        Assert.Equal(["lr=1e-3"], Pairs(data["params"]!));
        Assert.Contains("k=v", Pairs(data["tags"]!));
        Shape(await server.Done("runs/delete-tag", new { run_id = run, key = "k" }));
        Refused(await server.Post("runs/delete-tag", new { run_id = run, key = "k" }), 404, Missing);

        Refused(
            await server.Post(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = "lr",
                    value = "2e-3",
                }
            ),
            400,
            Invalid,
            "not allowed"
        );
        Refused(
            await server.Post(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = "long",
                    value = new string('x', 6001),
                }
            ),
            400,
            Invalid,
            "6000"
        );
        Shape(
            await server.Done(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = "faces",
                    value = string.Concat(Enumerable.Repeat("😀", 6000)),
                }
            )
        );
        Refused(
            await server.Post(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = "number",
                    value = 3,
                }
            ),
            400,
            Invalid,
            "'value'"
        );
        Refused(
            await server.Post(
                "runs/set-tag",
                new
                {
                    run_id = run,
                    key = "number",
                    value = 3,
                }
            ),
            400,
            Invalid,
            "'value'"
        );
        Refused(
            await server.Post(
                "runs/log-parameter",
                new
                {
                    run_id = run,
                    key = new string('k', 251),
                    value = "1",
                }
            ),
            400,
            Invalid,
            "250"
        );
        Refused(
            await server.Post(
                "runs/set-tag",
                new
                {
                    run_id = run,
                    key = "long",
                    value = new string('x', 5001),
                }
            ),
            400,
            Invalid,
            "5000"
        );
        await server.Done(
            "runs/set-tag",
            new
            {
                run_id = run,
                key = "long",
                value = new string('x', 5000),
            }
        );
        foreach (var key in new[] { "", "../up", "a//b", "/a", "a?b", "new\nline" })
            Refused(
                await server.Post(
                    "runs/log-metric",
                    new
                    {
                        run_id = run,
                        key,
                        value = 1,
                        timestamp = Start,
                    }
                ),
                400,
                Invalid
            );
        Refused(
            await server.Post(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key = "m",
                    timestamp = Start,
                }
            ),
            400,
            Invalid,
            "value"
        );
        Refused(
            await server.Post(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key = "m",
                    value = 1,
                }
            ),
            400,
            Invalid,
            "timestamp"
        );
        Refused(
            await server.Post(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key = "m",
                    value = 1,
                    timestamp = -1,
                }
            ),
            400,
            Invalid,
            "timestamp"
        );
        Refused(
            await server.Post(
                "runs/log-metric",
                new
                {
                    run_id = run,
                    key = "m",
                    value = 1,
                    timestamp = Start,
                    step = 1.5,
                }
            ),
            400,
            Invalid,
            "step"
        );
        Refused(
            await server.Post(
                "runs/log-metric",
                new
                {
                    run_id = "none",
                    key = "m",
                    value = 1,
                    timestamp = Start,
                }
            ),
            404,
            Missing
        );

        Shape(await server.Done("runs/delete", new { run_id = run }));
        Assert.Empty(await Found(experiment));
        Assert.Equal([run], await Found(experiment, "DELETED_ONLY"));
        Assert.Equal([run], await Found(experiment, "ALL"));
        Assert.Equal(
            "deleted",
            (string?)(await server.Got($"runs/get?run_id={run}"))["run"]!["info"]!["lifecycle_stage"]
        );
        Refused(
            await server.Post(
                "runs/set-tag",
                new
                {
                    run_id = run,
                    key = "k",
                    value = "v",
                }
            ),
            400,
            Invalid,
            "active"
        );
        Assert.Equal(
            run,
            (string?)
                Cli.Run(server.Folder, "runs", "list", "--deleted", "--filter", $"run_id = '{run}'", "--json").Json[0]![
                    "runId"
                ]
        );
        Shape(await server.Done("runs/restore", new { run_id = run }));
        Assert.Equal([run], await Found(experiment));
        await server.Done(
            "runs/set-tag",
            new
            {
                run_id = run,
                key = "k",
                value = "v",
            }
        );
    }

    [Fact]
    public async Task Runs_log_batch_records_all_values_or_refuses()
    {
        var run = await server.NewRun(await server.NewExperiment());
        Shape(
            await server.Done(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = Enumerable
                        .Range(0, 800)
                        .Select(i => new
                        {
                            key = $"m{i % 4}",
                            value = (object)(i == 799 ? "NaN" : i),
                            timestamp = Start + i / 4,
                            step = long.MaxValue - 200 + i / 4,
                        }),
                    @params = Enumerable.Range(0, 100).Select(i => Pair($"p{i}", $"{i}")),
                    tags = Enumerable.Range(0, 100).Select(i => Pair($"t{i}", $"{i}")),
                }
            )
        );
        var data = (await server.Got($"runs/get?run_id={run}"))["run"]!["data"]!;
        Assert.Equal(
            (4, 100, 101),
            (data["metrics"]!.AsArray().Count, data["params"]!.AsArray().Count, data["tags"]!.AsArray().Count)
        );
        Assert.Equal(
            $$"""{"key":"m3","value":"NaN","timestamp":{{Start + 199}},"step":{{long.MaxValue - 1}}}""",
            data["metrics"]![3]!.ToJsonString()
        );

        object Metric(int i) =>
            new
            {
                key = "n",
                value = 1,
                timestamp = Start,
                step = i,
            };
        Refused(
            await server.Post(
                "runs/log-batch",
                new { run_id = run, metrics = Enumerable.Range(0, 1001).Select(Metric) }
            ),
            400,
            Invalid,
            "1000 metrics"
        );
        Refused(
            await server.Post(
                "runs/log-batch",
                new { run_id = run, @params = Enumerable.Range(0, 101).Select(i => Pair($"q{i}", "")) }
            ),
            400,
            Invalid,
            "100 params"
        );
        Refused(
            await server.Post(
                "runs/log-batch",
                new { run_id = run, tags = Enumerable.Range(0, 101).Select(i => Pair($"u{i}", "")) }
            ),
            400,
            Invalid,
            "100 tags"
        );
        Refused(
            await server.Post(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = Enumerable.Range(0, 1000).Select(Metric),
                    tags = new[] { Pair("u", "") },
                }
            ),
            400,
            Invalid,
            "metrics, params, and tags"
        );
        Refused(
            await server.Post(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    tags = new[] { Pair("u", "") },
                    padding = new string(' ', 1_000_000),
                }
            ),
            400,
            Invalid,
            "1000000 bytes"
        );
        Refused(
            await server.Post(
                "runs/log-batch",
                new { run_id = run, @params = new[] { Pair("twice", "1"), Pair("twice", "1") } }
            ),
            400,
            Invalid,
            "Duplicate"
        );
        // One that is refused leaves nothing of itself, whatever is wrong.
        Refused(
            await server.Post(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = new[] { Metric(0) },
                    @params = new[] { Pair("fresh", "1"), Pair("p1", "other") },
                    tags = new[] { Pair("u", "") },
                }
            ),
            400,
            Invalid,
            "p1"
        );
        Refused(
            await server.Post(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = new[] { Metric(0) },
                    tags = new[] { Pair("a//b", "") },
                }
            ),
            400,
            Invalid
        );
        var after = (await server.Got($"runs/get?run_id={run}"))["run"]!["data"]!;
        Assert.True(JsonNode.DeepEquals(data, after));
        Shape(await server.Done("runs/log-batch", new { run_id = run }));
    }

    [Fact]
    public async Task Runs_log_inputs_outputs_and_model_are_returned_by_get()
    {
        var experiment = await server.NewExperiment();
        var run = await server.NewRun(experiment);
        var dataset = new
        {
            name = "squad",
            digest = "d1",
            source_type = "hf",
            source = "https://example.com/?sig=abc",
            schema = """{"a":"long"}""",
            profile = """{"rows":3}""",
        };
        var inputs = new
        {
            run_id = run,
            datasets = new[] { new { tags = new[] { Pair("mlflow.data.context", "training") }, dataset } },
            models = new[] { new { model_id = "m-1" } },
        };
        Shape(await server.Done("runs/log-inputs", inputs));
        // Data that the run has is left as it is, though less be said of it now.
        Shape(
            await server.Done(
                "runs/log-inputs",
                new
                {
                    run_id = run,
                    datasets = new[]
                    {
                        new
                        {
                            dataset = new
                            {
                                dataset.name,
                                dataset.digest,
                                dataset.source_type,
                                dataset.source,
                            },
                        },
                    },
                }
            )
        );
        Shape(
            await server.Done(
                "runs/outputs",
                new { run_id = run, models = new[] { new { model_id = "m-2", step = 5 } } }
            )
        );
        Shape(
            await server.Done(
                "runs/log-model",
                new
                {
                    run_id = run,
                    model_json = """{"run_id":"x","artifact_path":"model","utc_time_created":"2026","flavors":{}}""",
                }
            )
        );
        var got = (await server.Got($"runs/get?run_id={run}"))["run"]!;
        Assert.Equal(
            """{"dataset_inputs":[{"tags":[{"key":"mlflow.data.context","value":"training"}],"dataset":{"name":"squad","digest":"d1","source_type":"hf","source":"https://example.com/?sig=[redacted]","schema":"{\u0022a\u0022:\u0022long\u0022}","profile":"{\u0022rows\u0022:3}"}}],"model_inputs":[{"model_id":"m-1"}]}""",
            got["inputs"]!.ToJsonString()
        );
        Assert.Equal("""{"model_outputs":[{"model_id":"m-2","step":5}]}""", got["outputs"]!.ToJsonString());
        Assert.Equal(
            "model",
            (string?)
                JsonNode.Parse(
                    Pairs(got["data"]!["tags"]!)
                        .Single(tag => tag.StartsWith("mlflow.log-model.history=", StringComparison.Ordinal))
                        .Split('=')[1]
                )![0]!["artifact_path"]
        );
        foreach (
            var (filter, there) in new[]
            {
                ("dataset.name = 'squad'", true),
                ("datasets.digest IN ('d0', 'd1')", true),
                ("dataset.context = 'training' and dataset.name LIKE 's%'", true),
                ("dataset.name = 'other'", false),
            }
        )
            Assert.Equal(there ? [run] : [], await Found(experiment, filter: filter));
        Refused(
            await server.Post(
                "runs/log-inputs",
                new { run_id = run, datasets = new[] { new { dataset = new { name = "no digest" } } } }
            ),
            400,
            Invalid,
            "digest"
        );
        Refused(
            await server.Post(
                "runs/log-inputs",
                new
                {
                    run_id = run,
                    datasets = new[] { new { dataset = dataset with { digest = new string('d', 37) } } },
                }
            ),
            400,
            Invalid,
            "36"
        );
        Refused(await server.Post("runs/log-model", new { run_id = run, model_json = "{}" }), 400, Invalid, "flavors");
        Refused(await server.Post("runs/log-model", new { run_id = run, model_json = "no" }), 400, Invalid);
        await server.Done(
            "runs/set-tag",
            new
            {
                run_id = run,
                key = "mlflow.log-model.history",
                value = "mine",
            }
        );
        Refused(
            await server.Post(
                "runs/log-model",
                new
                {
                    run_id = run,
                    model_json = """{"run_id":"x","artifact_path":"model","utc_time_created":"2026","flavors":{}}""",
                }
            ),
            400,
            Invalid,
            "history"
        );
        Refused(
            await server.Post("runs/outputs", new { run_id = "none", models = Array.Empty<object>() }),
            404,
            Missing
        );
    }

    [Fact]
    public async Task Runs_search_filters_orders_and_pages()
    {
        var (one, two) = (await server.NewExperiment(), await server.NewExperiment());
        var runs = new List<string>();
        for (var i = 0; i < 5; i++)
        {
            var run = (string)
                (
                    await server.Done(
                        "runs/create",
                        new
                        {
                            experiment_id = i < 3 ? one : two,
                            start_time = Start + i,
                            run_name = $"run {i}",
                        }
                    )
                )["run"]!["info"]!["run_id"]!;
            await server.Done(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = new[]
                    {
                        new
                        {
                            key = "val/loss",
                            value = i % 2,
                            timestamp = Start,
                            step = 1,
                        },
                    },
                    @params = new[] { Pair("n", $"{i}") },
                }
            );
            runs.Add(run);
        }
        var answer = await server.Done(
            "runs/search",
            new
            {
                experiment_ids = new[] { one, two, "99999" },
                order_by = new[] { "metrics.`val/loss` DESC", "attributes.start_time ASC" },
                max_results = 2,
            }
        );
        Shape(answer, "runs", "next_page_token");
        Shape(answer["runs"]![0]!, "info", "data", "inputs", "outputs");
        var seen = Ids(answer);
        // Runs that begin meanwhile neither repeat nor hide others.
        await server.NewRun(one);
        while ((string?)answer["next_page_token"] is { } page)
        {
            answer = await server.Done(
                "runs/search",
                new
                {
                    experiment_ids = new[] { one, two },
                    filter = "params.n LIKE '%'",
                    order_by = new[] { "metrics.`val/loss` DESC", "attributes.start_time ASC" },
                    max_results = 2,
                    page_token = page,
                }
            );
            seen.AddRange(Ids(answer));
        }
        Assert.Equal([runs[1], runs[3], runs[0], runs[2], runs[4]], seen);
        Assert.Equal([runs[4], runs[3]], await Found(two)); // newest first
        Assert.Equal(
            [runs[4], runs[3]],
            Ids(await server.Done("runs/search", new { experiment_ids = new[] { two, two } }))
        );
        Assert.Empty(Ids(await server.Done("runs/search", new { })));
        Assert.Equal(
            [runs[4], runs[3]],
            Ids(
                await server.Done(
                    "runs/search",
                    new { experiment_ids = new[] { one, two }, filter = $"attributes.experiment_id = '{two}'" }
                )
            )
        );
        Assert.Equal(
            [runs[3]],
            Ids(
                await server.Done(
                    "runs/search",
                    new
                    {
                        experiment_ids = new[] { one, two },
                        filter = $"attributes.artifact_uri LIKE '%/{two}/{runs[3]}/artifacts'",
                    }
                )
            )
        );
        Refused(
            await server.Post("runs/search", new { experiment_ids = new[] { one }, filter = "metrics.loss <" }),
            400,
            Invalid,
            "Character"
        );
        Refused(
            await server.Post(
                "runs/search",
                new { experiment_ids = new[] { one }, order_by = new[] { "metrics.a sideways" } }
            ),
            400,
            Invalid
        );
        Refused(
            await server.Post("runs/search", new { experiment_ids = new[] { one }, page_token = "nonsense" }),
            400,
            Invalid
        );
        Refused(
            await server.Post("runs/search", new { experiment_ids = new[] { one }, max_results = 50_001 }),
            400,
            Invalid
        );
        Refused(
            await server.Post("runs/search", new { experiment_ids = new[] { one }, run_view_type = "SOME" }),
            400,
            Invalid
        );
    }

    [Theory]
    [InlineData("metrics.loss > 0.4 AND metric.loss <= 0.5", "a")]
    [InlineData("metrics.loss != 0.5", "b c")]
    [InlineData("params.kind = 'lora'", "a")]
    [InlineData("parameters.kind != \"lora\"", "b")]
    [InlineData("param.`kind` ILIKE 'LO%' and params.kind LIKE 'lo_a'", "a")]
    [InlineData("tags.\"mlflow.note\" = 'x y'", "b")]
    [InlineData("tag.mlflow.note = 'x y'", "b")]
    [InlineData("status = 'KILLED'", "c")]
    [InlineData("attributes.status != 'KILLED'", "a b")]
    [InlineData("attr.status IN ('FINISHED', 'KILLED')", "a c")]
    [InlineData("status = 'RUNNING'", "b")]
    [InlineData("attributes.start_time >= 1764028800001", "b c")]
    [InlineData("created < 1764028800001", "a")]
    [InlineData("end_time > 1764028800000", "a c")]
    [InlineData("run_name = 'b' OR attributes.`Run name` = 'c'", "b c")]
    [InlineData("run.user_id = 'ann'", "a")]
    [InlineData("user_id NOT IN ('ann')", "b c")]
    [InlineData("", "a b c")]
    public async Task Filter_in_MLflow_syntax_finds_the_expected_runs(string filter, string expected)
    {
        var name = "filters";
        var known = await server.Get($"experiments/get-by-name?experiment_name={name}");
        var experiment_id =
            known.Status == 200
                ? (string)known.Body!["experiment"]!["experiment_id"]!
                : await server.NewExperiment(name);
        if (known.Status != 200)
        {
            foreach (var (run_name, i) in "abc".Select((letter, i) => (letter.ToString(), i)))
            {
                var run = (string)
                    (
                        await server.Done(
                            "runs/create",
                            new
                            {
                                experiment_id,
                                run_name,
                                user_id = i == 0 ? "ann" : "bob",
                                start_time = Start + i,
                            }
                        )
                    )["run"]!["info"]!["run_id"]!;
                await server.Done(
                    "runs/log-batch",
                    new
                    {
                        run_id = run,
                        metrics = new[]
                        {
                            new
                            {
                                key = "loss",
                                value = 0.5 + i,
                                timestamp = Start,
                                step = 0,
                            },
                        },
                        @params = i == 2 ? [] : new[] { Pair("kind", i == 0 ? "lora" : "full") },
                        tags = i == 1 ? new[] { Pair("mlflow.note", "x y") } : [],
                    }
                );
                if (i != 1)
                    await server.Done(
                        "runs/update",
                        new
                        {
                            run_id = run,
                            status = i == 0 ? "FINISHED" : "KILLED",
                            end_time = Start + 1000,
                        }
                    );
            }
        }
        var answer = await server.Done(
            "runs/search",
            new
            {
                experiment_ids = new[] { experiment_id },
                filter,
                order_by = new[] { "run_name" },
            }
        );
        Assert.Equal(
            expected,
            string.Join(' ', answer["runs"]!.AsArray().Select(run => (string)run!["info"]!["run_name"]!))
        );
    }

    [Fact]
    public async Task Runs_search_with_random_filters_equals_a_naive_evaluator()
    {
        var random = new Random(20261126);
        var experiment_id = await server.NewExperiment();
        for (var i = 0; i < 30; i++)
        {
            var run = (string)
                (
                    await server.Done(
                        "runs/create",
                        new
                        {
                            experiment_id,
                            run_name = $"n{random.Next(4)}",
                            user_id = "u" + random.Next(2),
                            start_time = Start + random.Next(20),
                        }
                    )
                )["run"]!["info"]!["run_id"]!;
            await server.Done(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = Enumerable
                        .Range(0, random.Next(3))
                        .Select(_ => new
                        {
                            key = random.Next(2) == 0 ? "loss" : "val/acc",
                            value = random.Next(5) / 2.0,
                            timestamp = Start,
                            step = random.Next(3),
                        }),
                    @params = random.Next(3) == 0 ? [] : new[] { Pair("kind", "ab"[random.Next(2)] + "x") },
                    tags = random.Next(3) == 0 ? [] : new[] { Pair("my tag", "PQ"[random.Next(2)] + "y") },
                }
            );
            if (random.Next(3) > 0)
                await server.Done(
                    "runs/update",
                    new
                    {
                        run_id = run,
                        status = new[] { "FINISHED", "FAILED", "KILLED" }[random.Next(3)],
                        end_time = Start + 100,
                    }
                );
        }
        var all = (await server.Done("runs/search", new { experiment_ids = new[] { experiment_id } }))["runs"]!
            .AsArray()
            .Select(run => run!)
            .ToList();
        var some = 0;
        for (var i = 0; i < 150; i++)
        {
            var terms = Enumerable.Range(0, random.Next(1, 4)).Select(_ => Term(random)).ToList();
            var keys = Enumerable
                .Range(0, random.Next(3))
                .Select(_ => (Key: random.Next(4), Down: random.Next(2) == 0))
                .ToList();
            var filter = string.Join(random.Next(2) == 0 ? " and " : " AND ", terms.Select(term => term.Text));
            var order_by = keys.Select(key =>
                    new[] { "metrics.loss", "metrics.`val/acc`", "attributes.start_time", "params.kind" }[key.Key]
                    + (
                        key.Down ? " DESC"
                        : random.Next(2) == 0 ? ""
                        : " ASC"
                    )
                )
                .ToArray();
            var expected = all.Where(run => terms.TrueForAll(term => term.Matches(run))).ToList();
            expected.Sort(
                (a, b) =>
                    keys.Select(key => Compare(Of(a, key.Key), Of(b, key.Key), key.Down))
                        .Append(Compare(Of(b, 2), Of(a, 2), false))
                        .Append(string.CompareOrdinal((string)a["info"]!["run_id"]!, (string)b["info"]!["run_id"]!))
                        .FirstOrDefault(sign => sign != 0)
            );
            var (found, page, max_results) = (new List<string>(), (string?)null, random.Next(1, 40));
            do
            {
                var answer = await server.Done(
                    "runs/search",
                    new
                    {
                        experiment_ids = new[] { experiment_id },
                        filter,
                        order_by,
                        max_results,
                        page_token = page,
                    }
                );
                found.AddRange(Ids(answer));
                page = (string?)answer["next_page_token"];
            } while (page is not null);
            Assert.True(
                expected.Select(run => (string)run["info"]!["run_id"]!).SequenceEqual(found),
                $"{filter} order by {string.Join(", ", order_by)}"
            );
            some += expected.Count > 0 && expected.Count < all.Count ? 1 : 0;
        }
        Assert.True(some > 50, "the filters are too dull to test anything");

        static object? Of(JsonNode run, int key) =>
            key switch
            {
                0 => Metric(run, "loss"),
                1 => Metric(run, "val/acc"),
                2 => (double)run["info"]!["start_time"]!,
                _ => Text(run, "params", "kind"),
            };

        static int Compare(object? a, object? b, bool down) =>
            a is null || b is null
                ? (a is null ? 1 : 0) - (b is null ? 1 : 0)
                : (down ? -1 : 1)
                    * (a is string text ? string.CompareOrdinal(text, (string)b) : ((double)a).CompareTo((double)b));

        static double? Metric(JsonNode run, string key) =>
            (double?)
                run["data"]!["metrics"]!.AsArray().FirstOrDefault(metric => (string)metric!["key"]! == key)?["value"];

        static string? Text(JsonNode run, string kind, string key) =>
            (string?)run["data"]![kind]!.AsArray().FirstOrDefault(pair => (string)pair!["key"]! == key)?["value"];

        static (string Text, Func<JsonNode, bool> Matches) Term(Random random)
        {
            string One(params string[] spelled) => spelled[random.Next(spelled.Length)];
            if (random.Next(2) == 0)
            {
                var (key, limit, sign) = (
                    One("loss", "val/acc"),
                    random.Next(5) / 2.0,
                    One("=", "!=", "<", "<=", ">", ">=")
                );
                return (
                    $"{One("metrics", "metric")}.{One($"`{key}`", $"\"{key}\"")} {sign} "
                        + $"{limit.ToString(System.Globalization.CultureInfo.InvariantCulture)}",
                    run =>
                        Metric(run, key) is { } value
                        && sign switch
                        {
                            "=" => value == limit,
                            "!=" => value != limit,
                            "<" => value < limit,
                            "<=" => value <= limit,
                            ">" => value > limit,
                            _ => value >= limit,
                        }
                );
            }
            var (operand, read, values) = random.Next(5) switch
            {
                0 => (
                    One("params.kind", "param.`kind`", "parameters.kind", "parameter.\"kind\""),
                    (Func<JsonNode, string?>)(run => Text(run, "params", "kind")),
                    new[] { "ax", "bx", "zz" }
                ),
                1 => (One("tags.`my tag`", "tag.\"my tag\""), run => Text(run, "tags", "my tag"), ["Py", "Qy", "zz"]),
                2 => (
                    One("status", "attributes.status", "attr.status"),
                    run => (string)run["info"]!["status"]!,
                    ["FINISHED", "FAILED", "KILLED", "RUNNING"]
                ),
                3 => (
                    One("run_name", "attributes.run_name", "run.run_name", "tags.mlflow.runName"),
                    run => (string)run["info"]!["run_name"]!,
                    ["n0", "n1", "zz"]
                ),
                _ => (One("user_id", "attribute.user_id"), run => (string)run["info"]!["user_id"]!, ["u0", "u1"]),
            };
            var (wanted, other) = (One(values), One(values));
            return (operand.Contains("status", StringComparison.Ordinal) ? random.Next(2) : random.Next(5)) switch
            {
                0 => ($"{operand} = '{wanted}'", run => read(run) == wanted),
                1 => ($"{operand} != '{wanted}'", run => read(run) is { } value && value != wanted),
                2 => ($"{operand} LIKE '%{wanted[1]}'", run => read(run) is { } value && value[1] == wanted[1]),
                3 => (
                    $"{operand} ILIKE '{char.ToLowerInvariant(wanted[0])}_'",
                    run => read(run) is { } value && char.ToLowerInvariant(value[0]) == char.ToLowerInvariant(wanted[0])
                ),
                _ => (
                    $"{operand} {One("IN", "in")} ('{wanted}', '{other}')",
                    run => read(run) == wanted || read(run) == other
                ),
            };
        }
    }

    [Fact]
    public async Task Metrics_get_history_returns_points_by_page()
    {
        var run = await server.NewRun(await server.NewExperiment());
        await server.Done(
            "runs/log-batch",
            new
            {
                run_id = run,
                metrics = Enumerable
                    .Range(0, 10)
                    .Select(i => new
                    {
                        key = "loss",
                        value = i,
                        timestamp = Start + i,
                        step = i,
                    }),
            }
        );
        // What was sent again, since its answer was lost, is there once.
        await server.Done(
            "runs/log-metric",
            new
            {
                run_id = run,
                key = "loss",
                value = 9,
                timestamp = Start + 9,
                step = 9,
            }
        );
        var answer = await server.Got($"metrics/get-history?run_id={run}&metric_key=loss");
        Shape(answer, "metrics");
        Shape(answer["metrics"]![0]!, "key", "value", "timestamp", "step");
        Assert.Equal(
            Enumerable.Range(0, 10).Select(i => (i, Start + i, i)),
            answer["metrics"]!
                .AsArray()
                .Select(point => ((int)point!["value"]!, (long)point["timestamp"]!, (int)point["step"]!))
        );
        answer = await server.Got($"metrics/get-history?run_uuid={run}&metric_key=loss&max_results=6");
        Shape(answer, "metrics", "next_page_token");
        answer = await server.Got(
            $"metrics/get-history?run_id={run}&metric_key=loss&max_results=6&page_token={answer["next_page_token"]}"
        );
        Shape(answer, "metrics");
        Assert.Equal([6, 7, 8, 9], answer["metrics"]!.AsArray().Select(point => (int)point!["step"]!));
        Assert.Empty((await server.Got($"metrics/get-history?run_id={run}&metric_key=none"))["metrics"]!.AsArray());
        Refused(await server.Get("metrics/get-history?run_id=none&metric_key=loss"), 404, Missing);
        Refused(await server.Get($"metrics/get-history?run_id={run}"), 400, Invalid, "metric_key");
        Refused(await server.Get($"metrics/get-history?run_id={run}&metric_key=loss&page_token=x"), 400, Invalid);
    }

    [Fact]
    public async Task Metrics_get_history_bulk_interval_returns_points_of_several_runs()
    {
        var experiment = await server.NewExperiment();
        var runs = new[] { await server.NewRun(experiment), await server.NewRun(experiment) };
        foreach (var (run, many) in runs.Zip([100, 40]))
            await server.Done(
                "runs/log-batch",
                new
                {
                    run_id = run,
                    metrics = Enumerable
                        .Range(0, many)
                        .Select(i => new
                        {
                            key = "loss",
                            value = i,
                            timestamp = Start + i,
                            step = i,
                        }),
                }
            );
        var path = $"metrics/get-history-bulk-interval?run_ids={runs[0]}&run_ids={runs[1]}&metric_key=loss";
        var answer = await server.Got(path);
        Shape(answer, "metrics");
        Shape(answer["metrics"]![0]!, "key", "value", "timestamp", "step", "run_id");
        Assert.Equal(140, answer["metrics"]!.AsArray().Count);
        Assert.Equal(
            runs.SelectMany(run => Enumerable.Range(10, 6).Select(step => (run, step))),
            Points(await server.Got(path + "&start_step=10&end_step=15"))
        );
        var thin = Points(await server.Got(path + "&max_results=10"))
            .ToLookup(point => point.Item1, point => point.Item2);
        Assert.Equal([0, 11, 22, 33, 39, 44, 55, 66, 77, 88, 99], thin[runs[0]]);
        Assert.Equal([0, 11, 22, 33, 39], thin[runs[1]]);
        Refused(await server.Get(path + "&start_step=5"), 400, Invalid);
        Refused(await server.Get(path + "&start_step=5&end_step=4"), 400, Invalid);
        Refused(await server.Get(path + "&max_results=2501"), 400, Invalid);
        Refused(await server.Get("metrics/get-history-bulk-interval?metric_key=loss"), 400, Invalid);
        Refused(await server.Get("metrics/get-history-bulk-interval?run_ids=none&metric_key=loss"), 404, Missing);

        static IEnumerable<(string, int)> Points(JsonNode answer) =>
            answer["metrics"]!.AsArray().Select(point => ((string)point!["run_id"]!, (int)point["step"]!));
    }

    [Fact]
    public async Task Artifacts_list_returns_files_and_folders_of_a_path()
    {
        var experiment = await server.NewExperiment();
        var run = await server.NewRun(experiment);
        foreach (
            var (path, text) in new[]
            {
                ("top.txt", "top"),
                ("model/MLmodel", "m"),
                ("model/data/w.bin", "w"),
                ("model/data/w.bin", "weights"),
            }
        )
            await Put(experiment, run, path, text);
        var answer = await server.Got($"artifacts/list?run_id={run}");
        Shape(answer, "root_uri", "files");
        Assert.Equal($"mlflow-artifacts:/{experiment}/{run}/artifacts", (string?)answer["root_uri"]);
        Assert.Equal(
            """[{"path":"model","is_dir":true},{"path":"top.txt","is_dir":false,"file_size":3}]""",
            answer["files"]!.ToJsonString()
        );
        Assert.Equal(
            """[{"path":"model/MLmodel","is_dir":false,"file_size":1},{"path":"model/data","is_dir":true}]""",
            (await server.Got($"artifacts/list?run_uuid={run}&path=model"))["files"]!.ToJsonString()
        );
        Assert.Equal(
            """[{"path":"model/data/w.bin","is_dir":false,"file_size":7}]""",
            (await server.Got($"artifacts/list?run_id={run}&path=model/data/"))["files"]!.ToJsonString()
        );
        Assert.Equal("[]", (await server.Got($"artifacts/list?run_id={run}&path=none"))["files"]!.ToJsonString());
        foreach (var path in new[] { "..", "a/../b", "/etc", "a\\b", "%00", "C:/x" })
            Refused(await server.Get($"artifacts/list?run_id={run}&path={path}"), 400, Invalid, "path");
        Refused(await server.Get("artifacts/list?run_id=none"), 404, Missing);
    }

    [Fact]
    public async Task Artifacts_presigned_urls_give_the_content()
    {
        var run = await server.NewRun(await server.NewExperiment());
        var up = await server.Done(
            "artifacts/presigned-upload-url",
            new
            {
                run_id = run,
                path = "a b/ü.txt",
                expiration = 60,
            }
        );
        Shape(up, "presigned_url", "headers");
        Assert.StartsWith(server.Url, (string?)up["presigned_url"]);
        Assert.Equal(
            200,
            (
                await server.Send(
                    HttpMethod.Put,
                    new Uri((string)up["presigned_url"]!).PathAndQuery,
                    new StringContent("hello")
                )
            ).Status
        );
        var down = await server.Done("artifacts/presigned-download-url", new { run_id = run, path = "a b/ü.txt" });
        Shape(down, "presigned_url", "headers", "file_size");
        Assert.Equal(5, (int)down["file_size"]!);
        Assert.Equal(
            "hello",
            (string?)(await server.Send(HttpMethod.Get, new Uri((string)down["presigned_url"]!).PathAndQuery)).Body
        );
        Refused(
            await server.Post("artifacts/presigned-download-url", new { run_id = run, path = "none" }),
            404,
            Missing
        );
        Refused(await server.Post("artifacts/presigned-upload-url", new { run_id = run, path = "../x" }), 400, Invalid);
        Refused(await server.Post("artifacts/presigned-upload-url", new { model_id = "m", path = "x" }), 400, Invalid);
    }

    [Fact]
    public async Task Artifacts_of_a_run_are_served_byte_for_byte()
    {
        var experiment = await server.NewExperiment();
        var run = await server.NewRun(experiment);
        var root = $"{experiment}/{run}/artifacts";
        await Put(experiment, run, "a/one.txt", "one");
        await Put(experiment, run, "a/one.txt", "more"); // replaced
        await Put(experiment, run, "empty", "");
        Assert.Equal("more", (string?)(await Served(HttpMethod.Get, $"artifacts/{root}/a/one.txt")).Body);
        Assert.Equal("", (string?)(await Served(HttpMethod.Get, $"artifacts/{root}/empty")).Body);
        Assert.Equal(
            """{"files":[{"path":"a","is_dir":true},{"path":"empty","is_dir":false,"file_size":0}]}""",
            (await Served(HttpMethod.Get, $"artifacts?path={root}")).Body!.ToJsonString()
        );
        Assert.Equal(
            """{"files":[{"path":"one.txt","is_dir":false,"file_size":4}]}""",
            (await Served(HttpMethod.Get, $"artifacts?path={root}/a")).Body!.ToJsonString()
        );
        // A name is a file or a folder.
        Refused(
            await Served(HttpMethod.Put, $"artifacts/{root}/a/one.txt/inner", new StringContent("")),
            400,
            Invalid,
            "a/one.txt"
        );
        Refused(await Served(HttpMethod.Put, $"artifacts/{root}/a", new StringContent("")), 400, Invalid, "a/one.txt");
        Shape((await Served(HttpMethod.Delete, $"artifacts/{root}/a")).Body!);
        Refused(await Served(HttpMethod.Get, $"artifacts/{root}/a/one.txt"), 404, Missing);
        Refused(await Served(HttpMethod.Delete, $"artifacts/{root}/a"), 404, Missing);
        Refused(await Served(HttpMethod.Get, "artifacts/99999/none/artifacts/x"), 404, Missing);
        Refused(await Served(HttpMethod.Put, $"artifacts/0/{run}/artifacts/x", new StringContent("")), 404, Missing);
        Refused(await Served(HttpMethod.Put, $"artifacts/{root}", new StringContent("")), 400, Invalid);
        Shape((await Served(HttpMethod.Delete, $"artifacts/{root}/")).Body!);
        Assert.Equal("[]", (await server.Got($"artifacts/list?run_id={run}"))["files"]!.ToJsonString());

        // Large, in parts, out of order.
        var bytes = new byte[3 << 20];
        new Random(7).NextBytes(bytes);
        var made = (
            await Served(
                HttpMethod.Post,
                $"mpu/create/{root}/big",
                MlflowServer.Json(new { path = "/home/ann/w.bin", num_parts = 3 })
            )
        ).Body!;
        Shape(made, "upload_id", "credentials");
        Shape(made["credentials"]![0]!, "url", "part_number", "headers");
        using var http = new HttpClient();
        var parts = new List<object>();
        foreach (var credential in made["credentials"]!.AsArray().Reverse())
        {
            var part = (int)credential!["part_number"]!;
            using var put = await http.PutAsync(
                (string)credential["url"]!,
                new ByteArrayContent(bytes, (part - 1) << 20, 1 << 20)
            );
            parts.Add(
                new
                {
                    part_number = part,
                    etag = put.Headers.ETag!.Tag,
                    url = "",
                }
            );
        }
        var upload_id = (string)made["upload_id"]!;
        Refused(
            await Served(
                HttpMethod.Post,
                $"mpu/complete/{root}/big",
                MlflowServer.Json(
                    new
                    {
                        path = "w.bin",
                        upload_id,
                        parts = new[] { new { part_number = 1, etag = "\"other\"" } },
                    }
                )
            ),
            400,
            Invalid
        );
        Shape(
            (
                await Served(
                    HttpMethod.Post,
                    $"mpu/complete/{root}/big",
                    MlflowServer.Json(
                        new
                        {
                            path = "w.bin",
                            upload_id,
                            parts,
                        }
                    )
                )
            ).Body!
        );
        Assert.Equal(
            bytes,
            await http.GetByteArrayAsync($"{server.Url}/ajax-api/2.0/mlflow-artifacts/artifacts/{root}/big/w.bin")
        );
        Refused(
            await Served(
                HttpMethod.Post,
                $"mpu/abort/{root}/big",
                MlflowServer.Json(new { path = "w.bin", upload_id })
            ),
            404,
            Missing
        );
        made = (
            await Served(
                HttpMethod.Post,
                $"mpu/create/{root}/big",
                MlflowServer.Json(new { path = "x.bin", num_parts = 1 })
            )
        ).Body!;
        Shape(
            (
                await Served(
                    HttpMethod.Post,
                    $"mpu/abort/{root}/big",
                    MlflowServer.Json(new { path = "x.bin", upload_id = (string)made["upload_id"]! })
                )
            ).Body!
        );
        Refused(await Served(HttpMethod.Put, $"mpu/part/{made["upload_id"]}/1", new StringContent("")), 404, Missing);
    }

    [Fact]
    public async Task Artifacts_with_a_path_outside_the_run_are_refused()
    {
        var experiment = await server.NewExperiment();
        var run = await server.NewRun(experiment);
        await Put(experiment, run, "a.html", "<script>alert(1)</script>");
        var secret = Path.Combine(server.Folder, "secret");
        File.WriteAllText(secret, "secret");
        var root = $"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts";
        foreach (
            var path in new[]
            {
                "/../../../../secret",
                "/..%2f..%2f..%2f..%2fsecret",
                "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret",
                "/..%5c..%5csecret",
                "/%2fetc/passwd",
                "//etc/passwd",
                "/a%00b",
                "/" + secret,
            }
        )
        {
            foreach (var method in new[] { "GET", "PUT", "DELETE" })
            {
                // By hand: HttpClient would tidy such a path up.
                var answer = Raw(
                    $"{method} {root}{path} HTTP/1.1\r\nHost: {new Uri(server.Url).Authority}\r\nContent-Length: "
                        + "0\r\nConnection: close\r\n\r\n"
                );
                Assert.Matches(@"^HTTP/1.1 (400|404|405) ", answer);
                Assert.DoesNotContain("secret\n", answer);
            }
        }
        Assert.Equal("secret", File.ReadAllText(secret));
        var page = Raw(
            $"GET {root}/a.html HTTP/1.1\r\nHost: {new Uri(server.Url).Authority}\r\nConnection: close\r\n\r\n"
        );
        Assert.Contains("Content-Type: application/octet-stream", page);
        Assert.Contains("Content-Disposition: attachment", page);
    }

    [Fact]
    public async Task Addresses_outside_the_interface_answer_health_version_or_not_found()
    {
        Assert.Equal("OK", (string?)(await server.Send(HttpMethod.Get, "/health")).Body);
        Assert.Equal(
            (200, ""),
            await server.Send(HttpMethod.Head, "/health") is var head ? (head.Status, (string?)head.Body) : default
        );
        Assert.Equal(404, (await server.Send(HttpMethod.Head, "/api/2.0/mlflow/runs/get?run_id=none")).Status);
        Assert.Matches(@"^\d+\.\d+\.\d+$", (string?)(await server.Send(HttpMethod.Get, "/version")).Body);
        foreach (
            var path in new[]
            {
                "/api/2.0/mlflow/registered-models/search",
                "/api/3.0/mlflow/traces",
                "/ajax-api/2.0/mlflow/runs/nothing",
                "/api/2.0/mlflow-artifacts/other",
                "/api/2.0/mlflow/runs/create",
            }
        )
            Refused(await server.Send(HttpMethod.Get, path), 404, "ENDPOINT_NOT_FOUND");
        var id = await server.NewExperiment();
        Assert.Equal(
            id,
            (string?)
                (await server.Send(HttpMethod.Get, $"/ajax-api/2.0/mlflow/experiments/get?experiment_id={id}")).Body![
                    "experiment"
                ]!["experiment_id"]
        );
    }

    [Fact]
    public async Task Runs_of_trainings_appear_with_params_metrics_and_artifacts()
    {
        var adapter = Directory.CreateTempSubdirectory("memopt").FullName;
        File.WriteAllText(Path.Combine(adapter, "adapter_config.json"), "{}");
        File.WriteAllText(Path.Combine(adapter, "adapter_model.safetensors"), "weights");
        var start = new RunStart
        {
            Id = "trained",
            Experiment = "trainings",
            Started = DateTimeOffset.FromUnixTimeMilliseconds(Start),
            Config = """{"adapter":{"rank":16},"data":{"train":"x.jsonl"}}""",
            Hashes = new Dictionary<string, string> { ["data.train"] = "abc" },
        };
        string experiment;
        using (var training = server.Store.Begin(start))
        {
            training.Append([new StepRow(1, 2.5, 1e-3, 1, 10, 100, 1000, 0.1)]);
            var found = (await server.Done("experiments/search", new { filter = "name = 'trainings'" }))["experiments"]!
                .AsArray()
                .Single()!;
            experiment = (string)found["experiment_id"]!;
            Assert.Equal("RUNNING", (string?)(await server.Got("runs/get?run_id=trained"))["run"]!["info"]!["status"]);
            Refused(
                await server.Post(
                    "runs/set-tag",
                    new
                    {
                        run_id = "trained",
                        key = "note",
                        value = "x",
                    }
                ),
                409,
                "RESOURCE_CONFLICT"
            );
            training.Link(server.Artifacts.Put("adapter", adapter));
            training.End(
                new Tracking.Outcome(RunStatus.Finished)
                {
                    Ended = DateTimeOffset.FromUnixTimeMilliseconds(Start + 1000),
                }
            );
        }
        await server.Done(
            "runs/set-tag",
            new
            {
                run_id = "trained",
                key = "note",
                value = "good",
            }
        );
        using (server.Store.Amend("trained"))
        {
            // The server does not keep what is not its own: a training can be resumed at once.
        }
        Assert.Equal(
            ["trained"],
            await Found(
                experiment,
                filter: "params.adapter.rank = '16' and metrics.loss = 2.5 and tags.note = 'good' and status = "
                    + "'FINISHED'"
            )
        );
        var run = (await server.Got("runs/get?run_id=trained"))["run"]!;
        Assert.Equal(Start + 1000, (long)run["info"]!["end_time"]!);
        Assert.Equal(
            ("x.jsonl", "abc"),
            (
                (string)run["inputs"]!["dataset_inputs"]![0]!["dataset"]!["name"]!,
                (string)run["inputs"]!["dataset_inputs"]![0]!["dataset"]!["digest"]!
            )
        );
        Assert.Equal(
            """[{"path":"adapter","is_dir":true}]""",
            (await server.Got("artifacts/list?run_id=trained"))["files"]!.ToJsonString()
        );
        Assert.Equal(
            """[{"path":"adapter/adapter_config.json","is_dir":false,"file_size":2},{"path":"adapter/adapter_model.safetensors","is_dir":false,"file_size":7}]""",
            (await server.Got("artifacts/list?run_id=trained&path=adapter"))["files"]!.ToJsonString()
        );
        Assert.Equal(
            "weights",
            (string?)
                (
                    await Served(
                        HttpMethod.Get,
                        $"artifacts/{experiment}/trained/artifacts/adapter/adapter_model.safetensors"
                    )
                ).Body
        );
        Assert.Equal(
            """{"note":"good"}""",
            Cli.Run(server.Folder, "runs", "show", "trained", "--json").Json["tags"]!.ToJsonString()
        );
    }

    private async Task Put(string experiment, string run, string path, string text) =>
        Shape(
            (
                await Served(HttpMethod.Put, $"artifacts/{experiment}/{run}/artifacts/{path}", new StringContent(text))
            ).Body!
        );

    private Task<Answer> Served(HttpMethod method, string path, HttpContent? content = null) =>
        server.Send(method, "/api/2.0/mlflow-artifacts/" + path, content);

    private async Task<List<string>> Found(string experiment, string view = "ACTIVE_ONLY", string? filter = null) =>
        Ids(
            await server.Done(
                "runs/search",
                new
                {
                    experiment_ids = new[] { experiment },
                    run_view_type = view,
                    filter,
                }
            )
        );

    private static List<string> Ids(JsonNode answer) =>
        [.. answer["runs"]!.AsArray().Select(run => (string)run!["info"]!["run_id"]!)];

    private static object Pair(string key, string value) => new { key, value };

    private static IEnumerable<string> Pairs(JsonNode pairs) =>
        pairs.AsArray().Select(pair => $"{pair!["key"]}={pair["value"]}");

    /// <summary>The members of a message, no fewer and no more.</summary>
    private static void Shape(JsonNode message, params string[] members) =>
        Assert.Equal(members.Order(), message.AsObject().Select(member => member.Key).Order());

    private static void Refused(Answer answer, int status, string code, string says = "")
    {
        Assert.Equal((status, code), (answer.Status, answer.Error));
        Shape(answer.Body!, "error_code", "message");
        Assert.Contains(says, answer.Message);
    }

    private string Raw(string request)
    {
        using var client = new TcpClient("127.0.0.1", new Uri(server.Url).Port);
        using var stream = client.GetStream();
        stream.Write(Encoding.ASCII.GetBytes(request));
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
