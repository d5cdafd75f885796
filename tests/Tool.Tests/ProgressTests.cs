using System.Diagnostics;
using System.Text.Json.Nodes;
using Memopt.Hub.Tests;

namespace Memopt.Tool.Tests;

/// <summary><c>--progress json</c> of pull, eval and sweep: each line of standard error is a record, and standard
/// output is as without the option.</summary>
public sealed class ProgressTests
{
    private const string Rates = """{ "parameters": { "train.learningRate": [1e-4, 2e-3] } }""";

    [Fact]
    public void Pull_reports_the_bytes_of_each_file_and_how_it_ended()
    {
        using var server = Model();
        var folder = Cli.NewProject();
        var pulled = Pull(server, folder, "--progress", "json");
        Assert.True(pulled.Exit == 0, pulled.Error);
        var records = Records(pulled);
        foreach (var (file, served) in server.Files.Where(file => file.Value.Large || file.Key == "tokenizer.json"))
        {
            var counts = records.Where(record => Text(record, "name") == file).ToList();
            Assert.All(counts, count => Assert.Equal("progress", Text(count, "event")));
            Assert.All(counts, count => Assert.Equal(served.Bytes.Length, (int)count["total"]!));
            var done = counts.Select(count => (int)count["done"]!).ToList();
            Assert.Equal(done.Order(), done);
            Assert.Single(done, served.Bytes.Length);
            Assert.Equal(served.Bytes.Length, done[^1]);
        }
        AssertEnds(records, "finished");
        Assert.Equal(pulled.Output.Trim(), Text(records[^1], "text"));
        // The same from the cache: the same output without the option and with it.
        var again = Pull(server, folder, "--progress", "json");
        AssertEnds(Records(again), "finished");
        Assert.Equal(pulled.Output, again.Output);
        Assert.Equal(pulled.Output, Pull(server, folder).Output);
    }

    [Fact]
    public void Pull_interrupted_ends_as_stopped()
    {
        using var server = Model();
        // More than the server hands out: the download cannot end before the interrupt.
        server.Files["model.safetensors"] = new(new byte[8 << 20], Large: true);
        server.Most = 4 << 20;
        var folder = Cli.NewProject();
        using var process = Process.Start(Command(server, folder, "--progress", "json"))!;
        Cli.Await(process, "\"done\"");
        Cli.Interrupt(process);
        var stopped = Cli.Wait(process);
        Assert.Equal(130, stopped.Exit);
        AssertEnds(Records(stopped), "stopped");
        Assert.Empty(stopped.Output);
    }

    [Fact]
    public void Eval_reports_its_batches_and_its_result()
    {
        var folder = Cli.NewProject();
        string[] command = ["eval", "--data", "eval.jsonl", "--max-length", "64", "--batch", "3"];
        var plain = Cli.Run(folder, command);
        Assert.True(plain.Exit == 0, plain.Error);
        var told = Cli.Run(folder, [.. command, "--progress", "json"]);
        Assert.Equal((0, plain.Output), (told.Exit, told.Output));
        var records = Records(told);
        Assert.Equal(
            ["loading", "evaluation"],
            records
                .Where(record => Text(record, "event") == "progress")
                .Select(record => Text(record, "name"))
                .Distinct()
        );
        var rows = records.Where(record => Text(record, "name") == "evaluation").ToList();
        Assert.All(rows, record => Assert.Equal(8, (int)record["total"]!));
        Assert.Equal((3, 8), ((int)rows[0]["done"]!, (int)rows[^1]["done"]!));
        AssertEnds(records, "finished");
        var score = Cli.Run(folder, [.. command, "--json"]).Json;
        Assert.Equal(
            ((double)score["loss"]!, (double)score["accuracy"]!),
            ((double)records[^1]["loss"]!, (double)records[^1]["accuracy"]!)
        );
        Assert.Equal(plain.Output.Trim(), Text(records[^1], "judged"));
    }

    [Fact]
    public void Sweep_reports_each_trial_with_the_records_of_its_run()
    {
        var folder = Workshop(Rates);
        var told = Cli.Run(folder, "sweep", "rates.json", "--progress", "json", "--json");
        Assert.True(told.Exit == 0, told.Error);
        var records = Records(told);
        var trials = records.Where(record => Text(record, "event") == "trial").ToList();
        Assert.Equal(
            ["1 started", "1 finished", "2 started", "2 finished"],
            trials.Select(record => $"{record["trial"]} {Text(record, "status")}")
        );
        Assert.All(trials, record => Assert.Equal(2, (int)record["total"]!));
        foreach (var child in told.Json["children"]!.AsArray())
        {
            var number = (int)child!["number"]!;
            var (start, end) = (records.IndexOf(trials[2 * number - 2]), records.IndexOf(trials[2 * number - 1]));
            var own = records[start..end];
            // All between is of the trial's run, and none of it outside.
            Assert.All(own, record => Assert.Equal(number, (int)record["trial"]!));
            Assert.Equal(end + 1 - start, records.Count(record => (int?)record["trial"] == number));
            Assert.Equal(
                [1, 2, 3],
                own.Where(record => Text(record, "event") == "step").Select(record => (int)record["step"]!)
            );
            Assert.Equal(Text(child, "runId"), Text(own.Single(record => Text(record, "event") == "run"), "runId"));
            Assert.Equal(Text(child, "runId"), Text(records[end], "runId"));
            Assert.Equal("eval_loss", Text(records[end], "name"));
            Assert.Equal((double)child["value"]!, (double)records[end]["value"]!);
        }
        AssertEnds(records, "finished");
        Assert.Equal(Text(told.Json, "runId"), Text(records[^1], "runId"));
        Assert.Contains($"best: {told.Json["best"]!["number"]}", Text(records[^1], "judged"));
        // Up to date: the same output without the option and with it.
        var again = Cli.Run(folder, "sweep", "rates.json", "--progress", "json");
        AssertEnds(Records(again), "finished");
        Assert.Equal(Cli.Run(folder, "sweep", "rates.json").Output, again.Output);
    }

    [Fact]
    public void Sweep_with_a_failed_trial_ends_as_failed()
    {
        var folder = Workshop("""{ "parameters": { "adapter.targets": [["q_proj"], ["nosuch"]] } }""");
        var told = Cli.Run(folder, "sweep", "rates.json", "--progress", "json");
        Assert.Equal(1, told.Exit);
        var records = Records(told);
        var failed = records.Last(record => Text(record, "event") == "trial");
        Assert.Equal((2, "failed"), ((int)failed["trial"]!, Text(failed, "status")));
        Assert.Contains("nosuch", Text(failed, "text"));
        AssertEnds(records, "failed");
    }

    private static string Workshop(string sweep)
    {
        var folder = Cli.NewProject(
            """
            {
              "data": { "train": "train.jsonl", "eval": "eval.jsonl", "maxLength": 64 },
              "train": { "steps": 3, "batchSize": 4, "microBatch": 2 }
            }
            """
        );
        File.WriteAllText(Path.Combine(folder, "rates.json"), sweep);
        return folder;
    }

    private static HubServer Model()
    {
        var server = new HubServer();
        foreach (var file in Directory.EnumerateFiles(Path.Combine(Cli.Repository, "samples", "word-class", "model")))
            server.Files[Path.GetFileName(file)] = new(
                File.ReadAllBytes(file),
                Large: file.EndsWith(".safetensors", StringComparison.Ordinal)
            );
        return server;
    }

    private static Outcome Pull(HubServer server, string folder, params string[] more)
    {
        using var process = Process.Start(Command(server, folder, more))!;
        return Cli.Wait(process);
    }

    private static ProcessStartInfo Command(HubServer server, string folder, params string[] more)
    {
        var start = Cli.Command(folder, ["pull", "org/model", .. more]);
        foreach (
            var name in new[] { "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE" }
        )
            start.Environment.Remove(name);
        start.Environment["HF_ENDPOINT"] = server.Url.ToString();
        start.Environment["HF_HOME"] = folder;
        return start;
    }

    /// <summary>Every line of standard error, each a record with its time.</summary>
    private static List<JsonObject> Records(Outcome outcome)
    {
        var records = outcome.Error.Trim().Split('\n').Select(line => JsonNode.Parse(line)!.AsObject()).ToList();
        Assert.All(records, record => Assert.True(DateTimeOffset.TryParse(Text(record, "time"), out _)));
        return records;
    }

    private static void AssertEnds(List<JsonObject> records, string status)
    {
        Assert.Same(records[^1], records.Single(record => Text(record, "event") == "finished"));
        Assert.Equal(status, Text(records[^1], "status"));
    }

    private static string? Text(JsonNode record, string key) => (string?)record[key];
}
