using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Hub.Tests;
using Memopt.Tool.Views;
using Spectre.Console;

namespace Memopt.Tool.Tests;

/// <summary>Data in the commands: preview, what a run records of it, and the cache of large files under kills and
/// several processes.</summary>
public sealed class DataTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private static readonly string[] vocabulary =
    [
        "What",
        "part",
        "of",
        "speech",
        "is",
        "noun",
        "verb",
        "adjective",
        "adverb",
        "the",
        "word",
        "answer",
    ];

    private static string Golden(string name) =>
        Path.Combine(Cli.Repository, "tests", "Trainer.Tests", "Golden", "data", name);

    public void Dispose() => Directory.Delete(folder, recursive: true);

    /// <summary>Chats of about so many MB, none like another; three chunks and more.</summary>
    private string Large(int megabytes)
    {
        var path = Path.Combine(folder, "large.jsonl");
        using var writer = new StreamWriter(path, append: false, new UTF8Encoding(false));
        var random = new Random(11);
        for (long size = 0, n = 0; size < megabytes << 20; n++)
        {
            var words = string.Join(
                ' ',
                Enumerable.Range(0, random.Next(20, 100)).Select(_ => vocabulary[random.Next(vocabulary.Length)])
            );
            var line =
                $"{{\"messages\":[{{\"role\":\"user\",\"content\":\"{n} {words}\"}},{{\"role\":\"assistant\",\"content\":\""
                + $"{words}\"}}]}}";
            writer.Write(line + "\n");
            size += line.Length + 1;
        }
        return path;
    }

    [Fact]
    public void Preview_shows_tokens_lengths_cuts_and_packing()
    {
        var project = Cli.NewProject();
        var shown = Cli.Run(
            project,
            "data",
            "preview",
            "--rows",
            "1",
            "--set",
            "data.maxLength=26",
            "--set",
            "data.truncate=drop"
        );
        Assert.True(shown.Exit == 0, shown.Error);
        Assert.Contains("«noun<|im_end|>»", shown.Output);
        Assert.Contains("packed:", shown.Output);
        var json = Cli.Run(
            project,
            "data",
            "preview",
            "--rows",
            "2",
            "--json",
            "--set",
            "data.maxLength=26",
            "--set",
            "data.truncate=drop"
        ).Json;
        Assert.Equal(24, (int)json["count"]! + (int)json["dropped"]!);
        Assert.True((int)json["dropped"]! > 0);
        Assert.Equal((int)json["count"]!, json["lengths"]!.AsArray().Sum(bin => (int)bin!["rows"]!));
        // No two rows of 24 and more fit into 26: each sequence is a row.
        Assert.Equal((int)json["count"]!, (int)json["packing"]!["sequences"]!);
        Assert.Equal(
            (double)(long)json["tokens"]! / (26 * (int)json["count"]!),
            (double)json["packing"]!["filled"]!,
            1e-9
        );
        var tokens = json["rows"]![0]!["tokens"]!.AsArray();
        Assert.Equal(
            "<|im_start|>user\nWhat part of speech is \"chub\"?<|im_end|>\n<|im_start|>assistant\nnoun<|im_end|>\n",
            string.Concat(tokens.Select(token => (string?)token!["text"]))
        );
        Assert.Equal(
            "noun<|im_end|>",
            string.Concat(tokens.Where(token => (bool)token!["trained"]!).Select(token => (string?)token!["text"]))
        );
        Directory.Delete(project, recursive: true);
    }

    [Fact]
    public void Preview_in_a_narrow_terminal_fits_and_escapes_control_characters_of_rows()
    {
        var written = new StringWriter();
        var console = AnsiConsole.Create(
            new AnsiConsoleSettings { Ansi = AnsiSupport.No, Out = new AnsiConsoleOutput(written) }
        );
        console.Profile.Width = 40;
        new DataView(
            3,
            30,
            20,
            0,
            0,
            0,
            0,
            20,
            [new(10, 14, 1), new(15, 19, 2)],
            new(1, 0.5),
            [new(1, null, [new(1, "a\u001b[31mb\u0007\u009bc\u007f\n", true)])]
        ).Write(console, "3 rows");
        var lines = written.ToString().Split('\n').Select(line => line.TrimEnd()).ToList();
        Assert.Contains("«a␛[31mb␇\ufffdc␡⏎", lines);
        Assert.Equal(
            ["  10 – 14      1   ██████████", "  15 – 19      2   ███████████████████"],
            lines.Where(line => line.Contains('█'))
        );
    }

    [Fact]
    public void Preview_needs_no_config_and_no_libtorch()
    {
        var start = Cli.Command(folder, "data", "preview", Golden("chats.parquet"), "--json");
        start.Environment["NUGET_PACKAGES"] = folder; // where libtorch would be found
        start.Environment["MEMOPT_LIBTORCH"] = folder;
        using var process = Process.Start(start)!;
        var result = Cli.Wait(process);
        Assert.True(result.Exit == 0, result.Error);
        Assert.Equal(File.ReadLines(Golden("chats.jsonl")).Count(), (int)result.Json["count"]!);
        File.WriteAllText(
            Path.Combine(folder, "pairs.jsonl"),
            """{"prompt":"2+2=","chosen":" four","rejected":" five"}"""
        );
        var pairs = Cli.Run(folder, "data", "preview", "pairs.jsonl", "--json");
        Assert.True(pairs.Exit == 0, pairs.Error);
        Assert.Equal(["chosen", "rejected"], pairs.Json["rows"]!.AsArray().Select(row => (string?)row!["answer"]));
        var refused = Cli.Run(folder, "data", "preview", "nowhere.jsonl");
        Assert.Equal(2, refused.Exit);
        Assert.Contains("nowhere.jsonl", refused.Error);
    }

    [Fact]
    public void Run_records_the_counts_of_its_rows_and_resumes_with_the_same_rows()
    {
        var project = Cli.NewProject(
            """
            {
              "data": { "train": [{ "source": "chats.parquet#80", "weight": 1.5 }, "train.jsonl"], "evalShare": 0.25, "maxLength": 48, "truncate": "split" },
              "train": { "steps": 3, "batchSize": 2 },
              "checkpoint": { "every": 1 }
            }
            """
        );
        File.Copy(Golden("chats.parquet"), Path.Combine(project, "chats.parquet"));
        var run = Cli.Run(project, "run", "--json");
        Assert.True(run.Exit == 0, run.Error);
        Assert.True((double)run.Json["eval"]!["loss"]! > 0);
        var shown = Cli.Run(project, "runs", "show", (string)run.Json["runId"]!, "--json").Json;
        var facts = shown["environment"]!;
        int Fact(string name) => int.Parse((string)facts[name]!);
        Assert.True(Fact("data.train.split") > 0);
        Assert.True(Fact("data.train.rows") > Fact("data.eval.rows") && Fact("data.eval.rows") > 0);
        Assert.NotEqual((string?)shown["hashes"]!["data.train"], (string?)shown["hashes"]!["data.eval"]);
        Assert.True((bool)Cli.Run(project, "run", "--json").Json["upToDate"]!);
        Directory.Delete(project, recursive: true);
    }

    [Fact]
    public void Checkpoint_made_with_another_row_order_is_refused()
    {
        var project = Cli.NewProject();
        string[] run = ["run", "--set", "train.epochs=100000"]; // it does not come to its end before it is killed
        var checkpoints = Path.Combine(project, ".memopt", "memopt", "checkpoints");
        bool Saved() => Directory.Exists(checkpoints) && Directory.EnumerateDirectories(checkpoints, "step-*").Any();
        using (var process = Cli.Start(project, run))
        {
            var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
            while (!process.HasExited && !Saved())
                Thread.Sleep(10);
            if (process.HasExited)
                Assert.Fail($"it ended before it was killed: {error.Result}");
            process.Kill();
            process.WaitForExit();
        }
        foreach (
            var path in Directory
                .GetDirectories(checkpoints, "step-*")
                .Select(step => Path.Combine(step, "manifest.json"))
                .Where(File.Exists)
        )
        {
            var manifest = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
            manifest.Remove("order"); // as versions wrote it that filled an epoch's last step with rows of the next
            File.WriteAllText(path, manifest.ToJsonString());
        }
        var again = Cli.Run(project, run);
        Assert.NotEqual(0, again.Exit);
        Assert.Contains("the order of the rows was an older version's", again.Error);
        Assert.Contains("--from-start", again.Error);
        Directory.Delete(project, recursive: true);
    }

    [Fact]
    public void Tokenizing_killed_repeatedly_loses_no_finished_part_and_changes_no_row()
    {
        var file = Large(32);
        string[] Preview(string cache) =>
            ["data", "preview", file, "--json", "--rows", "3", "--set", $"data.cache={cache}"];
        var calm = Cli.Run(folder, Preview("calm"));
        Assert.True(calm.Exit == 0, calm.Error);
        var before = new HashSet<string>();
        var random = new Random(3);
        // It comes to no end before the kills: the last part waits.
        var parts = PartsOf("calm");
        var gate = Gate(Path.Combine(folder, "stormy", parts[^1]));
        string[] Parts() =>
            [
                .. Directory
                    .GetFiles(Path.Combine(folder, "stormy/shards"), "*", SearchOption.AllDirectories)
                    .Where(path => path != gate && !path.EndsWith(".part", StringComparison.Ordinal)),
            ];
        // While it starts and reads, then each time soon after another part is there, as the next ones are being made.
        for (var kills = 0; kills < 3; kills++)
        {
            using var process = Cli.Start(folder, Preview("stormy"));
            var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
            while (kills > 0 && !process.HasExited && Parts().Length < Math.Min(before.Count + 1, parts.Length - 1))
                Thread.Sleep(5);
            if (process.WaitForExit(TimeSpan.FromMilliseconds(random.Next(300))))
                Assert.Fail($"it ended before it was killed: {error.Result}");
            process.Kill();
            process.WaitForExit();
            Assert.DoesNotContain("error", error.Result);
            Assert.Subset(Parts().ToHashSet(), before);
            before = [.. Parts()];
        }
        File.Delete(gate);
        Assert.InRange(before.Count, 2, parts.Length - 1);
        var stamps = before.ToDictionary(path => path, File.GetLastWriteTimeUtc);
        var stormy = Cli.Run(folder, Preview("stormy"));
        Assert.True(stormy.Exit == 0, stormy.Error);
        Assert.Equal(calm.Output, stormy.Output);
        // what was made was not made again
        Assert.All(stamps, pair => Assert.Equal(pair.Value, File.GetLastWriteTimeUtc(pair.Key)));
        Assert.Equal(parts, PartsOf("stormy"));

        // Another start reads the cache alone, in a moment, and says so by saying nothing.
        var again = Cli.Run(folder, Preview("stormy"));
        Assert.Equal((calm.Output, ""), (again.Output, again.Error));
    }

    [Fact]
    public void Tokenizing_in_two_processes_encodes_a_file_once()
    {
        var file = Large(10);
        string[] arguments = ["data", "preview", file, "--json"];
        // Neither goes on before both have begun.
        var held = new FileStream(
            Path.Combine(Directory.CreateDirectory(Path.Combine(folder, ".memopt/data")).FullName, "lock"),
            FileMode.OpenOrCreate,
            FileAccess.ReadWrite,
            FileShare.None
        );
        using var first = Cli.Start(folder, arguments);
        using var second = Cli.Start(folder, arguments);
        Cli.Await(first, "another process is tokenizing");
        Cli.Await(second, "another process is tokenizing");
        held.Dispose();
        var others = Task.Run(() => Cli.Wait(second));
        var one = Cli.Wait(first);
        var two = others.Result;
        Assert.Equal((0, 0), (one.Exit, two.Exit));
        Assert.Equal(one.Output, two.Output);
        // One of them waited for the other, and then found everything.
        Assert.Single(
            new[] { one.Error, two.Error },
            error => error.Contains("tokenizing, MiB", StringComparison.Ordinal)
        );
    }

    [Fact]
    public void Tokenizing_interrupted_ends_and_keeps_the_finished_parts()
    {
        var file = Large(60); // seconds of work after its first part
        using var process = Cli.Start(folder, "data", "preview", file, "--json");
        var shards = Path.Combine(folder, ".memopt/data/shards");
        while (
            !process.HasExited
            && (
                !Directory.Exists(shards)
                || Directory
                    .GetFiles(shards, "*", SearchOption.AllDirectories)
                    .All(path => path.EndsWith(".part", StringComparison.Ordinal))
            )
        )
            Thread.Sleep(10);
        Cli.Interrupt(process);
        Assert.Equal(130, Cli.Wait(process).Exit);
        Assert.Contains("by a previous run", Cli.Run(folder, "data", "preview", file, "--json").Error);
    }

    /// <summary>The parts of the one file that a cache has, in its order, as paths in the cache.</summary>
    private string[] PartsOf(string cache) =>
        [
            .. File.ReadLines(Directory.GetFiles(Path.Combine(folder, cache, "files")).Single())
                .Select(line => Path.Combine("shards", line[..2], line.Split(' ')[0])),
        ];

    /// <summary>A pipe in the place of a part: who looks whether the part is there waits until somebody opens the other
    /// end.</summary>
    private static string Gate(string part)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(part)!);
        using var made = Process.Start("mkfifo", [part]);
        made.WaitForExit();
        Assert.Equal(0, made.ExitCode);
        return part;
    }

    [Fact]
    public void Data_set_from_the_hub_is_downloaded_and_its_commit_recorded()
    {
        using var server = new HubServer("org/rows") { DataSet = true };
        server.Files["data/train-00000-of-00001.parquet"] = new(
            File.ReadAllBytes(Golden("chats.parquet")),
            Large: true
        );
        server.Files["data/test-00000-of-00001.parquet"] = new([1, 2, 3], Large: true);
        File.WriteAllText(
            Path.Combine(folder, "memopt.json"),
            """{ "data": { "train": "hf:org/rows#40", "maxLength": 64 }, "train": { "steps": 1, "batchSize": 2 } }"""
        );
        var start = Cli.Command(folder, "run", "--json");
        foreach (var name in new[] { "HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE" })
            start.Environment.Remove(name);
        start.Environment["HF_ENDPOINT"] = server.Url.ToString();
        start.Environment["HF_HOME"] = folder;
        using var process = Process.Start(start)!;
        var run = Cli.Wait(process);
        Assert.True(run.Exit == 0, run.Error);
        var facts = Cli.Run(folder, "runs", "show", (string)run.Json["runId"]!, "--json").Json["environment"]!;
        Assert.Equal(
            (HubServer.Commit, "40"),
            ((string?)facts["data.commit.hf:org/rows"], (string?)facts["data.train.rows"])
        );
        Assert.DoesNotContain(
            server.StorageRequests,
            request =>
                request.Path.EndsWith(server.Files["data/test-00000-of-00001.parquet"].Sha256, StringComparison.Ordinal)
        );
    }
}
