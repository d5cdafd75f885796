using System.Text.Json.Nodes;
using Memopt.Tracking.Tests;

namespace Memopt.Tool.Tests;

/// <summary>Adapters by name, from the training that registers them to every command that takes one.</summary>
public sealed class AdaptersTests
{
    private static byte[] Weights(string folder) =>
        File.ReadAllBytes(Path.Combine(folder, "adapter_model.safetensors"));

    private static Outcome Good(string folder, params string[] arguments)
    {
        var outcome = Cli.Run(folder, arguments);
        Assert.True(outcome.Exit == 0, outcome.Error + outcome.Output);
        return outcome;
    }

    [Fact]
    public void Run_registers_its_adapter_and_every_command_takes_it_by_name()
    {
        var folder = Cli.NewProject();
        var first = Good(folder, "run", "--json", "--set", "train.steps=6", "--set", "tracking.register=tone");
        Assert.Contains("tone@1: best, latest", first.Error);
        var old = Weights(Path.Combine(folder, ".memopt/memopt/adapter"));
        var second = Good(folder, "run", "--json", "--set", "train.steps=2", "--set", "tracking.register=tone");
        Assert.Contains("tone@2: latest", second.Error);
        Assert.DoesNotContain(
            "registered",
            Good(folder, "run", "--set", "train.steps=2", "--set", "tracking.register=tone").Error
        ); // the same again is nothing new

        var tone = Good(folder, "adapters", "show", "tone", "--json").Json;
        Assert.Equal(
            [(string)first.Json["runId"]!, (string)second.Json["runId"]!],
            tone["versions"]!.AsArray().Select(version => (string)version!["runId"]!)
        );
        Assert.Equal((double)first.Json["eval"]!["loss"]!, (double)tone["versions"]![0]!["metrics"]!["eval_loss"]!);
        Assert.Equal((2, 1), ((int)tone["aliases"]!["latest"]!, (int)tone["aliases"]!["best"]!));
        Good(folder, "adapters", "alias", "tone@best", "production");
        Assert.Contains("production → 1", Good(folder, "adapters", "ls").Output);

        foreach (var name in new[] { "tone@production", "tone@1", "tone@best" })
        {
            Good(folder, "artifacts", "get", name, "--out", $"got-{name}");
            Assert.Equal(old, Weights(Path.Combine(folder, $"got-{name}")));
        }
        Good(folder, "artifacts", "get", "tone@latest", "--out", "newest");
        Assert.Equal(Weights(Path.Combine(folder, ".memopt/memopt/adapter")), Weights(Path.Combine(folder, "newest")));
        string Loss(string adapter) =>
            Good(
                folder,
                "eval",
                "--adapter",
                adapter,
                "--quantize",
                "nf4",
                "--data",
                "eval.jsonl",
                "--max-length",
                "64",
                "--json"
            ).Json["loss"]!.ToJsonString();
        Assert.Equal(Loss("got-tone@1"), Loss("tone@production"));
        // The config that was trained knows its evaluation data and its longest row. What the registry named keeps its
        // base as it was trained, without a word; so does the config, which also takes as many rows at once.
        string Told(string adapter, params string[] more) =>
            Good(
                folder,
                ["eval", "--adapter", adapter, "--data", "eval.jsonl", "--max-length", "64", "--json", .. more]
            ).Json["loss"]!.ToJsonString();
        Assert.Equal(Loss("tone@latest"), Told("tone@latest"));
        Assert.NotEqual(Loss("tone@latest"), Told("tone@latest", "--quantize", "none"));
        Assert.Equal(
            second.Json["eval"]!["loss"]!.ToJsonString(),
            Good(folder, "eval", "--config", "memopt.json", "--json").Json["loss"]!.ToJsonString()
        );
        Assert.Equal(second.Json["eval"]!["loss"]!.ToJsonString(), Told("tone@latest", "--batch", "2"));
        Good(folder, "export", "--adapter", "tone@1", "--out", "exported");
        Assert.Equal(old, Weights(Path.Combine(folder, "exported")));
        string Said(string adapter) =>
            Good(folder, "infer", "--adapter", adapter, "--ids", "1,2,3", "--max-tokens", "4", "--json").Json[
                "ids"
            ]!.ToJsonString();
        Assert.Equal(Said("got-tone@1"), Said("tone@1"));

        // Going on from a version: the run is a fork of the one that made it, in another config.
        File.WriteAllText(
            Path.Combine(folder, "more.json"),
            """
            { "data": { "train": "train.jsonl", "maxLength": 64 }, "adapter": { "kind": "qlora", "from": "tone@production" },
              "train": { "steps": 2, "batchSize": 6, "microBatch": 2 }, "tracking": { "experiment": "more of it" } }
            """
        );
        // Its plan is that of the adapter's rank, 4, and not of the default.
        var trained = Good(folder, "plan", "more.json", "--json").Json["rows"]!
            .AsArray()
            .Single(row => (string?)row!["name"] == "adapters")!;
        Assert.Contains("rank 4:", (string?)trained["why"]);
        var inputs = Good(folder, "config", "inputs", "more.json").Output;
        Assert.Contains($"adapter tone@production {(string)tone["versions"]![0]!["hash"]!}", inputs);
        var more = Good(folder, "run", "more.json", "--json");
        Assert.Contains("more-of-it@1: latest", more.Error);
        var parent = Good(folder, "runs", "show", (string)more.Json["runId"]!, "--json").Json["parent"]!;
        Assert.Equal(((string)first.Json["runId"]!, "fork"), ((string)parent["id"]!, (string)parent["kind"]!));
        Assert.True((bool)Good(folder, "run", "more.json", "--json").Json["upToDate"]!);

        // What the registry names stays when its run goes.
        Good(folder, "runs", "gc", "--filter", $"run_id = '{(string)first.Json["runId"]!}'", "--apply");
        Good(folder, "artifacts", "get", "tone@1", "--out", "after");
        Assert.Contains(
            "is named by tone@1",
            Cli.Run(folder, "artifacts", "rm", (string)tone["versions"]![0]!["hash"]!).Error
        );
        Assert.Contains("is what production means", Cli.Run(folder, "adapters", "rm", "tone@1").Error);
        Good(folder, "adapters", "alias", "tone@2", "production");
        Good(folder, "adapters", "rm", "tone@1");
        var history = Good(folder, "adapters", "show", "tone", "--json").Json["history"]!.AsArray();
        Assert.Equal(2, history.Count);
        Assert.Contains(
            "tone has no version \"1\": there is 2, and best, latest, production",
            Cli.Run(folder, "eval", "--adapter", "tone@1", "--data", "eval.jsonl").Error
        );
        // the folder's content has no run: another version
        Assert.Equal("tone@3", Good(folder, "adapters", "register", "tone", "after").Output.Trim());
        Assert.Contains(
            "There is no run, folder or artifact 0123.",
            Cli.Run(folder, "adapters", "register", "tone", "0123").Error
        );
        Assert.Contains("There is no artifact 0123.", Cli.Run(folder, "artifacts", "rm", "0123").Error);
        Assert.Contains(
            "neither a folder nor a registered name",
            Cli.Run(folder, "infer", "--adapter", "nothing", "x").Error
        );
    }

    [Fact]
    public void Registry_is_shared_by_machines_through_the_storage_account()
    {
        using var azurite = new Azurite();
        Cli.Account = azurite.Connection;
        string Config(string more = "") =>
            $$"""
                { "model": { "source": "embedded:nano" }, "data": { "train": "train.jsonl", "eval": "eval.jsonl", "maxLength": 64 }, "adapter": { "rank": 4 },
                  "train": { "steps": 2, "batchSize": 6 }, "tracking": { "artifacts": "{{Azurite.Place}}", "experiment": "tone" } {{more}} }
                """;
        var (one, two) = (Cli.NewProject(Config()), Cli.NewProject(Config()));
        var run = Good(one, "run", "--json");
        Assert.Contains("tone@1", run.Error);
        Assert.Contains("1 (eval_loss", Good(two, "adapters", "ls").Output);
        Good(two, "adapters", "alias", "tone", "production");
        Good(two, "run", "--json", "--set", "train.seed=7");
        Assert.Equal(
            ["1", "2"],
            Good(one, "adapters", "show", "tone", "--json").Json["versions"]!
                .AsArray()
                .Select(version => version!["number"]!.ToJsonString())
        );
        Good(two, "artifacts", "get", "tone@production", "--out", "got");
        Assert.Equal(Weights(Path.Combine(one, ".memopt/memopt/adapter")), Weights(Path.Combine(two, "got")));
        Good(two, "eval", "--adapter", "tone@1", "--data", "eval.jsonl", "--max-length", "64");

        // Without the account a registration is kept here and said to be; sync shares it.
        azurite.Stop();
        var alone = Cli.Run(one, "adapters", "alias", "tone@1", "tested");
        Assert.Equal(1, alone.Exit);
        Assert.Contains("changed on this machine only", alone.Error);
        Assert.Contains("artifacts sync", alone.Error);
        azurite.Start();
        Good(one, "artifacts", "sync");
        Assert.Equal(1, (int)Good(two, "adapters", "show", "tone", "--json").Json["aliases"]!["tested"]!);
    }
}
