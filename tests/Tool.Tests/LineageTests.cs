using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary>What a run records of where it came from, and that it can be made again from that.</summary>
public sealed class LineageTests
{
    private static Outcome Good(string folder, params string[] arguments)
    {
        var outcome = Cli.Run(folder, arguments);
        Assert.True(outcome.Exit == 0, outcome.Error + outcome.Output);
        return outcome;
    }

    private static JsonNode Shown(string folder, JsonNode run) =>
        Good(folder, "runs", "show", (string)run["runId"]!, "--json").Json;

    private static void Git(string folder, params string[] arguments)
    {
        using var git = Process.Start(
            new ProcessStartInfo("git", ["-c", "user.name=a", "-c", "user.email=a@example.org", .. arguments])
            {
                WorkingDirectory = folder,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var wrong = git.StandardError.ReadToEndAsync();
        git.StandardOutput.ReadToEnd();
        git.WaitForExit();
        Assert.True(git.ExitCode == 0, wrong.Result);
    }

    private static byte[] Adapter(string folder, string place) =>
        File.ReadAllBytes(Path.Combine(folder, ".memopt", place, "adapter", "adapter_model.safetensors"));

    [Fact]
    public void Reproduced_run_has_the_same_bytes_and_reports_what_differs()
    {
        var folder = Cli.NewProject();
        var first = Good(folder, "run", "--json", "--set", "train.steps=9", "--set", "adapter.rank=2").Json;
        var id = (string)first["runId"]!;
        var record = Shown(folder, first);
        Assert.Equal(
            ("9", "2"),
            ((string?)record["overrides"]!["train.steps"], (string?)record["overrides"]!["adapter.rank"])
        );
        Assert.Equal(
            ["config", "data.eval", "data.train", "model", "template", "tokenizer"],
            record["hashes"]!.AsObject().Select(hash => hash.Key).Order()
        );
        Assert.All(record["hashes"]!.AsObject(), hash => Assert.Equal(64, ((string)hash.Value!).Length));
        Assert.Equal("24", (string?)record["environment"]!["data.train.rows"]);

        // The config has changed since; the record has not.
        File.WriteAllText(
            Path.Combine(folder, "memopt.json"),
            """{ "data": { "train": "train.jsonl" }, "adapter": { "rank": 8 } }"""
        );
        var again = Good(folder, "run", "--from-run", id[..14], "--json");
        Assert.Contains($"model, data, code and machine are those of run {id}", again.Error);
        Assert.Equal(Adapter(folder, "memopt"), Adapter(folder, $"again-{id}"));
        var shown = Shown(folder, again.Json);
        Assert.Equal((id, "again"), ((string?)shown["parent"]!["id"], (string?)shown["parent"]!["kind"]));
        Assert.Equal("9", (string?)shown["overrides"]!["train.steps"]);
        Assert.Equal(record["hashes"]!.ToJsonString(), shown["hashes"]!.ToJsonString());
        Assert.True((bool)Good(folder, "run", "--from-run", id, "--json").Json["upToDate"]!);
        var differing = Good(folder, "runs", "diff", id, (string)again.Json["runId"]!, "--json")
            .Json.AsArray()
            .Select(one => (string)one!["section"]!)
            .Distinct();
        Assert.DoesNotContain(differing, section => section is "config" or "hashes" or "code");

        // A setting on top, in a folder of its own; killed and given again, it goes on.
        string[] more = ["run", "--from-run", id, "--set", "train.learningRate=5e-4", "--json"];
        using (var killed = Cli.Start(folder, more))
        {
            var lines = killed.StandardError;
            while (lines.ReadLine() is { } line && !line.StartsWith("step 1 ", StringComparison.Ordinal)) { }
            while (
                !Directory
                    .EnumerateDirectories(Path.Combine(folder, ".memopt"), $"again-{id}-*")
                    .Any(place => Directory.Exists(Path.Combine(place, "checkpoints"))) && !killed.HasExited
            )
                Thread.Sleep(1);
            killed.Kill();
            killed.WaitForExit();
        }
        var changed = Good(folder, more);
        var altered = Shown(folder, changed.Json);
        Assert.Equal(
            ("0.0005", "9"),
            ((string?)altered["overrides"]!["train.learningRate"], (string?)altered["overrides"]!["train.steps"])
        );
        Assert.NotEqual(
            Adapter(folder, "memopt"),
            Adapter(
                folder,
                Path.GetFileName(
                    Directory.EnumerateDirectories(Path.Combine(folder, ".memopt"), $"again-{id}-*").Single()
                )
            )
        );

        // Other data is said and recorded, and is no reason to refuse.
        File.AppendAllLines(
            Path.Combine(folder, "train.jsonl"),
            File.ReadLines(Path.Combine(folder, "eval.jsonl")).Take(1).ToList()
        );
        var other = Good(folder, "run", "--from-run", id, "--json");
        Assert.Contains("content of data.train: was " + ((string)record["hashes"]!["data.train"]!)[..12], other.Error);
        Assert.Contains(
            Shown(folder, other.Json)["events"]!.AsArray(),
            happened =>
                (string?)happened!["kind"] == "differs"
                && ((string)happened["text"]!).StartsWith("content of data.train", StringComparison.Ordinal)
        );
        Assert.Contains("There is no run zz", Cli.Run(folder, "run", "--from-run", "zz").Error);
    }

    [Fact]
    public void Run_with_changed_evaluation_rows_evaluates_again_without_training()
    {
        var folder = Cli.NewProject();
        string[] run = ["run", "--json", "--set", "train.steps=3"];
        var first = Good(folder, run).Json;
        var (adapter, record) = (Adapter(folder, "memopt"), Shown(folder, first));
        File.WriteAllLines(
            Path.Combine(folder, "eval.jsonl"),
            File.ReadAllLines(Path.Combine(folder, "eval.jsonl")).Take(2)
        );
        var again = Good(folder, run);
        Assert.Contains("was judged by other rows", again.Error);
        Assert.Equal((string)first["runId"]!, (string)again.Json["runId"]!);
        Assert.False((bool?)again.Json["upToDate"] ?? false);
        Assert.True((double)again.Json["eval"]!["tokens"]! < (double)first["eval"]!["tokens"]!);
        var score = Good(folder, "eval", "--config", "memopt.json", "--json").Json;
        Assert.Equal(
            again.Json["eval"]!.ToJsonString(),
            new JsonObject(
                again.Json["eval"]!
                    .AsObject()
                    .Select(value => KeyValuePair.Create(value.Key, score[value.Key]?.DeepClone()))
            ).ToJsonString()
        );
        Assert.Equal(adapter, Adapter(folder, "memopt"));
        var shown = Shown(folder, again.Json);
        Assert.NotEqual((string)record["hashes"]!["data.eval"]!, (string)shown["hashes"]!["data.eval"]!);
        Assert.Equal(record["ledger"]!.ToJsonString(), shown["ledger"]!.ToJsonString());
        Assert.Equal("finished", (string?)shown["status"]);
        Assert.Contains(
            "MEMOPT0012",
            Cli.Run(folder, "gate", "--max-eval-loss", $"{(double)score["loss"]! - 0.001:F6}").Error
        );
        Good(folder, "gate", "--max-eval-loss", $"{(double)score["loss"]! + 0.001:F6}");
        Assert.True((bool)Good(folder, run).Json["upToDate"]!);
    }

    [Fact]
    public void Uncommitted_changes_are_recorded_without_their_secrets()
    {
        var folder = Cli.NewProject();
        File.WriteAllText(Path.Combine(folder, ".gitignore"), "/ignored.txt\n");
        File.WriteAllText(Path.Combine(folder, "prepare.py"), "one\ntwo\n");
        Git(folder, "init", "-q");
        Git(folder, "add", ".");
        Git(folder, "commit", "-qm", "first");
        string[] run = ["run", "--json", "--set", "train.steps=1"];
        var clean = Shown(folder, Good(folder, run).Json);
        Assert.Equal(["adapter"], clean["artifacts"]!.AsArray().Select(link => (string)link!["name"]!));

        File.WriteAllText(Path.Combine(folder, "prepare.py"), "one\nTWO\n");
        File.WriteAllText(Path.Combine(folder, "new.py"), "api_key = \"hunter2hunter2\"\nprint(1)");
        File.WriteAllText(Path.Combine(folder, ".env"), "export STORE_PASSWORD=hunter2hunter2\n");
        File.WriteAllText(Path.Combine(folder, "ignored.txt"), "not wanted");
        File.WriteAllBytes(Path.Combine(folder, "binary"), new byte[10]);
        File.WriteAllText(Path.Combine(folder, "large.txt"), new string('x', 300_000));
        var dirty = Shown(folder, Good(folder, [.. run, "--from-start"]).Json);
        var hash = (string)dirty["artifacts"]!.AsArray().Single(link => (string?)link!["name"] == "git-diff")!["hash"]!;
        Good(folder, "artifacts", "get", hash, "--out", "out");
        var patch = File.ReadAllText(Path.Combine(folder, "out", "changes.patch"));
        Assert.Contains("-two\n+TWO", patch);
        Assert.Contains("+print(1)\n\\ No newline at end of file", patch);
        Assert.Contains("+api_key = [redacted]", patch);
        Assert.Contains("+export STORE_PASSWORD=[redacted]", patch);
        Assert.DoesNotContain("hunter2", patch);
        Assert.DoesNotContain("not wanted", patch);
        Assert.DoesNotContain("diff --git a/.memopt", patch);
        Assert.Contains("# untracked, not in here: binary\n", patch);
        Assert.Contains("# untracked, not in here: large.txt\n", patch);

        // git takes it: on the commit alone it makes the files that were there.
        var bare = Directory.CreateTempSubdirectory("memopt").FullName;
        Git(bare, "clone", "-q", folder, "clone");
        Git(Path.Combine(bare, "clone"), "apply", Path.Combine(folder, "out", "changes.patch"));
        Assert.Equal("one\nTWO\n", File.ReadAllText(Path.Combine(bare, "clone", "prepare.py")));

        // Made again on the next commit: it says that the code is another.
        Git(folder, "add", ".");
        Git(folder, "commit", "-qm", "second");
        var again = Good(folder, "run", "--from-run", (string)dirty["runId"]!, "--json");
        Assert.Contains($"git commit: was {((string)dirty["gitCommit"]!)[..12]}", again.Error);
        Assert.Contains("git-diff, changes that are in no commit: was " + hash[..12], again.Error);
    }
}
