using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary><c>sweep</c> as a user types it, on the embedded model with three steps a combination.</summary>
public sealed class SweepTests
{
    private const string Grid = """
        {
          // rank changes fastest
          "parameters": { "train.learningRate": [1e-4, 2e-2], "adapter.rank": [2, 4] },
        }
        """;

    private static string NewProject(string sweep = Grid, string name = "grid.json")
    {
        var folder = Cli.NewProject(
            """
            {
              "data": { "train": "train.jsonl", "eval": "eval.jsonl", "maxLength": 64 },
              "adapter": { "rank": 4, "alpha": 8 },
              "train": { "steps": 3, "batchSize": 6, "microBatch": 2, "learningRate": 1e-3 },
              "checkpoint": { "every": 1 },
              "tracking": { "tensorboard": "board", "tags": { "team": "nlp" } }
            }
            """
        );
        File.WriteAllText(Path.Combine(folder, name), sweep);
        return folder;
    }

    [Fact]
    public void Sweep_killed_continues_where_it_was_and_names_the_best()
    {
        var folder = NewProject();
        var third = Directory.CreateDirectory(Path.Combine(folder, ".memopt", "memopt", "sweep-grid", "3")).FullName;
        var end = () => { };
        using (var process = Cli.Start(folder, "sweep", "grid.json"))
        {
            // The third waits for its folder with its rows still unread; they are made such that it does not end before
            // the kill.
            using (
                new FileStream(
                    Path.Combine(third, "run.lock"),
                    FileMode.OpenOrCreate,
                    FileAccess.ReadWrite,
                    FileShare.None
                )
            )
            {
                Cli.Await(process, "waiting  ");
                end = Cli.Endless(folder);
            }
            var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
            var checkpoint = Path.Combine(third, "checkpoints");
            while (!Directory.Exists(checkpoint) || !Directory.EnumerateDirectories(checkpoint, "step-*").Any())
                Assert.False(process.WaitForExit(5), process.HasExited ? error.Result : "");
            process.Kill();
            process.WaitForExit();
        }
        end();
        var before = Runs(folder, "tags.sweep = 'grid' order by start_time");
        Assert.Equal(["finished", "finished", "interrupted"], before.Select(run => (string)run["status"]!));

        var said = Cli.Run(folder, "sweep", "grid.json", "--json");
        Assert.True(said.Exit == 0, said.Error);
        var children = said.Json["children"]!.AsArray();
        Assert.Equal([true, true, false, false], children.Select(child => (bool)child!["upToDate"]!));
        Assert.Equal(
            before.Select(run => (string)run["runId"]!),
            children.Take(3).Select(child => (string)child!["runId"]!)
        );
        Assert.Equal(
            ["1e-4 2", "1e-4 4", "2e-2 2", "2e-2 4"],
            children.Select(child =>
                $"{child!["parameters"]!["train.learningRate"]!.ToJsonString()} {child["parameters"]!["adapter.rank"]}"
            )
        );

        // What it says is what the store has, of runs with exactly their three steps.
        var id = (string)said.Json["runId"]!;
        foreach (var child in children)
        {
            var shown = Cli.Run(folder, "runs", "show", (string)child!["runId"]!, "--json").Json;
            Assert.Equal(
                ("finished", id, "sweep"),
                ((string?)shown["status"], (string?)shown["parent"]!["id"], (string?)shown["parent"]!["kind"])
            );
            Assert.Equal(("grid", "nlp"), ((string?)shown["tags"]!["sweep"], (string?)shown["tags"]!["team"]));
            Assert.Equal([1, 2, 3], shown["steps"]!.AsArray().Select(step => (int)step!["step"]!));
            Assert.Equal((double)child["value"]!, (double)shown["metrics"]!["eval_loss"]!["last"]!);
            Assert.Equal(
                child["parameters"]!["adapter.rank"]!.ToJsonString(),
                shown["config"]!["adapter"]!["rank"]!.ToJsonString()
            );
            Assert.True(File.Exists(Path.Combine((string)child["folder"]!, "adapter", "adapter_model.safetensors")));
        }
        Assert.Equal(
            children.MinBy(child => (double)child!["value"]!)!["runId"]!.ToString(),
            (string?)said.Json["best"]!["runId"]
        );
        Assert.Equal(4, children.Select(child => (double)child!["value"]!).Distinct().Count());
        Assert.Equal(4, Runs(folder, $"parent = '{id}'").Count);
        var sweep = Runs(folder, $"run_id = '{id}'").Single();
        Assert.Equal(
            ("finished", 4, (string?)said.Json["best"]!["runId"]),
            ((string?)sweep["status"], (int)sweep["step"]!, (string?)sweep["tags"]!["best"])
        );

        // Of the four the best alone is registered.
        var registered = Cli.Run(folder, "adapters", "show", "default", "--json").Json["versions"]!.AsArray();
        Assert.Equal((string?)said.Json["best"]!["runId"], (string?)registered.Single()!["runId"]);

        // The interrupted run's event files: one of before the kill, one of after.
        Assert.Equal(2, Directory.EnumerateFiles(Path.Combine(folder, "board", (string)before[2]["runId"]!)).Count());

        var table = Cli.Run(folder, "sweep", "grid.json");
        Assert.Equal(0, table.Exit);
        Assert.Contains($"best: {said.Json["best"]!["number"]}  train.learningRate=", table.Output);
        Assert.Equal(5, Runs(folder).Count);
    }

    [Fact]
    public void Sweep_interrupted_names_the_command_to_continue_and_a_changed_file_trains_only_what_is_new()
    {
        var folder = NewProject();
        var end = Cli.Endless(folder);
        using var process = Cli.Start(folder, "sweep", "grid.json");
        Cli.Await(process, "step 1 / ");
        Cli.Interrupt(process);
        var stopped = Cli.Wait(process);
        end();
        Assert.Equal(130, stopped.Exit);
        Assert.Contains("go on with: dotnet memopt sweep grid.json", stopped.Error);

        // The first place has another combination now, though a checkpoint of the old one lies there; the second cannot
        // be trained.
        File.WriteAllText(
            Path.Combine(folder, "grid.json"),
            """{ "metric": "loss", "goal": "maximize", "parameters": { "adapter.rank": [3], "adapter.targets": ["all-linear", ["w_q"]] } }"""
        );
        var said = Cli.Run(folder, "sweep", "grid.json", "--json");
        Assert.Equal(1, said.Exit);
        Assert.Equal(
            ["finished", "failed"],
            said.Json["children"]!.AsArray().Select(child => (string)child!["status"]!)
        );
        Assert.Contains("w_q", (string)said.Json["children"]![1]!["reason"]!);
        Assert.Equal(1, (int)said.Json["best"]!["number"]!);
        var shown = Cli.Run(folder, "runs", "show", (string)said.Json["runId"]!, "--json").Json;
        Assert.Contains("w_q", (string)shown["events"]!.AsArray().Single()!["text"]!);
        Assert.Equal(
            "3",
            Cli.Run(folder, "runs", "show", (string)said.Json["best"]!["runId"]!, "--json").Json["config"]!["adapter"]![
                "rank"
            ]!.ToJsonString()
        );
    }

    [Fact]
    public void Sweep_over_an_unpinned_setting_evaluates_again_when_its_file_changes()
    {
        var folder = NewProject("""{ "parameters": { "data.eval": ["eval.jsonl", "ü.jsonl"] } }""", "free.json");
        File.WriteAllLines(Path.Combine(folder, "ü.jsonl"), File.ReadLines(Path.Combine(folder, "eval.jsonl")).Take(3));
        double[] Values()
        {
            var judged = Cli.Run(folder, "sweep", "free.json", "--json");
            Assert.Null(judged.Json["best"]);
            Assert.Contains("2 different sets of evaluation data", judged.Error);
            return [.. judged.Json["children"]!.AsArray().Select(child => (double)child!["value"]!)];
        }
        var values = Values();
        Assert.NotEqual(values[0], values[1]);
        File.WriteAllText(
            Path.Combine(folder, "free.json"),
            """{ "parameters": { "data.eval": ["ü.jsonl", "eval.jsonl"] } }"""
        );
        Assert.Equal(values.Reverse(), Values());

        // What no run has is no reason to be silent; and names stand as they were written.
        File.WriteAllText(
            Path.Combine(folder, "free.json"),
            """{ "metric": "eval_los", "parameters": { "data.eval": ["ü.jsonl", "eval.jsonl"] } }"""
        );
        var said = Cli.Run(folder, "sweep", "free.json");
        Assert.Equal(0, said.Exit);
        Assert.Matches("best +none: no combination has eval_los as a number; runs have .*eval_loss", said.Error);
        Assert.Contains("\"ü.jsonl\"", said.Output);
    }

    [Fact]
    public void Sweep_of_random_draws_depends_on_its_file_alone()
    {
        const string draws = """
            { "method": "random", "count": 12, "seed": 7, "parameters": {
              "train.learningRate": { "min": 1e-5, "max": 1e-2, "log": true }, "adapter.rank": { "min": 2, "max": 5 }, "adapter.kind": ["lora", "qlora"] } }
            """;
        var folder = NewProject(draws, "draw.json");
        JsonArray Drawn(string text)
        {
            File.WriteAllText(Path.Combine(folder, "draw.json"), text);
            return Cli.Run(folder, "sweep", "draw.json", "--dry-run", "--json").Json["combinations"]!.AsArray();
        }
        List<string> Lines(string text) => [.. Drawn(text).Select(one => one!["parameters"]!.ToJsonString())];
        var first = Drawn(draws);
        Assert.Equal(12, first.Select(one => one!["parameters"]!.ToJsonString()).Distinct().Count());
        Assert.Equal([2, 3, 4, 5], first.Select(one => (int)one!["parameters"]!["adapter.rank"]!).Distinct().Order());
        var rates = first.Select(one => (double)one!["parameters"]!["train.learningRate"]!).ToList();
        Assert.All(rates, rate => Assert.InRange(rate, 1e-5, 1e-2));
        Assert.InRange(rates.Count(rate => rate < 3.2e-4), 2, 10); // by factors, not by differences
        Assert.Equal(Lines(draws), Lines(draws));
        Assert.Equal(Lines(draws)[..5], Lines(draws.Replace("12", "5")));
        Assert.NotEqual(Lines(draws), Lines(draws.Replace("7", "8")));
        // Four are all that there are.
        Assert.Equal(
            4,
            Lines(
                """{ "method": "random", "count": 50, "parameters": { "adapter.rank": { "min": 2, "max": 5 } } }"""
            ).Count
        );
        Assert.Equal(
            ["2", "4", "8", "16"],
            Drawn("""{ "parameters": { "adapter.rank": { "min": 2, "max": 16, "log": true, "points": 4 } } }""")
                .Select(one => one!["parameters"]!["adapter.rank"]!.ToJsonString())
        );
        Assert.False(Directory.Exists(Path.Combine(folder, ".memopt")));
    }

    [Fact]
    public void Sweep_file_with_several_problems_reports_all_with_their_places()
    {
        var folder = NewProject(
            """
            {
              "metod": "grid",
              "goal": "best",
              "parameters": {
                "train.learningRte": [1],
                "adapter.rank": [4, 0],
                "adapter.kind": { "min": 1, "max": 2 },
                "train.warmup": { "min": 3, "mx": 2 },
                "tracking.store": ["a"]
              }
            }
            """,
            "bad.json"
        );
        var said = Cli.Run(folder, "sweep", "bad.json", "--json");
        Assert.Equal(2, said.Exit);
        foreach (
            var expected in new[]
            {
                "(2,3): error MEMOPT0002: metod",
                "(3,11): error MEMOPT0003: goal",
                "(5,5): error MEMOPT0002: parameters.train.learningRte is not a setting (did you mean "
                    + "train.learningRate?)",
                "(6,25): error MEMOPT0004: parameters.adapter.rank",
                "(7,30): error MEMOPT0003: parameters.adapter.kind",
                "(8,33): error MEMOPT0002: parameters.train.warmup.mx",
                "(9,5): error MEMOPT0006: parameters.tracking.store",
            }
        )
        {
            Assert.Contains("bad.json" + expected, said.Error);
        }
    }

    [Theory]
    [InlineData("""{ "parameters": {} }""", "bad.json(1,3): error MEMOPT0003: parameters must name")]
    [InlineData("""{ "method": "random", "parameters": { "adapter.rank": [1] } }""", "random needs count")]
    [InlineData("""{ "count": 3, "parameters": { "adapter.rank": [1] } }""", "is for method random")]
    [InlineData(
        """{ "parameters": { "adapter.rank": { "min": 1, "max": 4 } } }""",
        "bad.json(1,19): error MEMOPT0006: parameters.adapter.rank a grid needs"
    )]
    [InlineData(
        """{ "parameters": { "train.microBatch": [2, 4] } }""",
        "combination 2 (train.microBatch=4): train.microBatch is 4, which does not divide"
    )]
    [InlineData("""{ "config": "no.json", "parameters": { "adapter.rank": [1] } }""", "\"no.json\" is not a file")]
    [InlineData("""{ "parameters": { "data.eval": [null] } }""", "eval_loss needs data.eval")]
    [InlineData("""{ "parameters": { "adapter.rank": { "min": 0, "max": 4, "points": 2 } } }""", "MEMOPT0004")]
    [InlineData("""{ "parameters": """, "MEMOPT0001")]
    public void Sweep_file_that_is_invalid_is_refused(string text, string expected)
    {
        var said = Cli.Run(NewProject(text, "bad.json"), "sweep", "bad.json", "--dry-run");
        Assert.Equal((2, ""), (said.Exit, said.Output));
        Assert.Contains(expected, said.Error);
    }

    private static List<JsonNode> Runs(string folder, string? filter = null) =>
        [
            .. Cli.Run(folder, ["runs", "list", .. filter is null ? [] : new[] { "--filter", filter }, "--json"])
                .Json.AsArray()
                .Select(run => run!),
        ];
}
