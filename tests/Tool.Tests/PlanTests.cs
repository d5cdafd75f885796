using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary><c>plan</c> as a user calls it: a config.json and nothing else.</summary>
public sealed class PlanTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private static string Published(string model) =>
        Path.Combine(Cli.Repository, "tests", "Trainer.Tests", "Plan", "configs", model + ".json");

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void Plan_from_a_bare_config_json_and_a_GPU_name_succeeds()
    {
        var result = Cli.Run(
            folder,
            "plan",
            "--model",
            Published("qwen2.5-7b"),
            "--gpu",
            "RTX 4090",
            "--set",
            "adapter.kind=qlora",
            "--set",
            "data.maxLength=2048",
            "--json"
        );
        Assert.Equal((0, ""), (result.Exit, result.Error));
        Assert.Equal(7_615_616_512, (long)result.Json["model"]!["parameters"]!);
        var rows = result.Json["rows"]!.AsArray();
        Assert.All(
            rows,
            row =>
                Assert.True(
                    (long)row!["bytes"]! > 0
                        && (string)row["place"]! is "device" or "host"
                        && ((string)row["why"]!).Length > 3
                )
        );
        Assert.Equal(
            (long)result.Json["peakBytes"]!,
            rows.Where(row => (string)row!["place"]! == "device").Sum(row => (long)row!["bytes"]!)
        );
        Assert.True((long)result.Json["peakBytes"]! <= 24564L << 20);
        Assert.All(
            result.Json["strategies"]!.AsArray(),
            s =>
                Assert.Equal(
                    [
                        "name",
                        "peakBytes",
                        "fits",
                        "relativeSpeed",
                        "maxSequence",
                        "maxMicroBatch",
                        "hostBytes",
                        "devices",
                    ],
                    s!.AsObject().Select(p => p.Key)
                )
        );
        Assert.Empty(Directory.EnumerateFileSystemEntries(folder));
    }

    /// <summary>The tool in a folder that lacks TorchSharp.</summary>
    [Fact]
    public void Commands_that_train_nothing_load_no_TorchSharp()
    {
        var tool = Directory.CreateDirectory(Path.Combine(folder, "tool")).FullName;
        // Copies, since the host looks beside the file that a link leads to.
        var built = new DirectoryInfo(Path.GetDirectoryName(Cli.Tool)!);
        foreach (var file in built.EnumerateFiles().Where(file => file.Name != "TorchSharp.dll"))
            file.CopyTo(Path.Combine(tool, file.Name));
        foreach (var inside in built.EnumerateDirectories())
            Directory.CreateSymbolicLink(Path.Combine(tool, inside.Name), inside.FullName);
        var project = Cli.NewProject();
        try
        {
            Outcome Run(params string[] arguments)
            {
                var start = Cli.Command(project, arguments);
                start.ArgumentList[start.ArgumentList.IndexOf(Cli.Tool)] = Path.Combine(tool, "memopt.dll");
                using var process = System.Diagnostics.Process.Start(start)!;
                return Cli.Wait(process);
            }
            foreach (var command in new[] { "plan", "config check", "data preview", "pull embedded:nano", "runs list" })
            {
                var result = Run(command.Split(' '));
                Assert.True(result.Exit == 0, $"{command}: {result.Exit}\n{result.Error}");
            }
            Assert.Contains("TorchSharp", Run("doctor").Error);
        }
        finally
        {
            Directory.Delete(project, recursive: true);
        }
    }

    [Fact]
    public void Plan_that_does_not_fit_fails_and_names_strategies_that_do()
    {
        string[] tooLarge =
        [
            "estimate-memory",
            "--model",
            Published("qwen2.5-14b"),
            "--gpu",
            "24GiB",
            "--set",
            "adapter.kind=none",
        ];
        var said = Cli.Run(folder, tooLarge);
        Assert.Equal(1, said.Exit);
        Assert.Contains("QLoRA", said.Error);
        Assert.Contains("adapter.kind = qlora", said.Error);
        Assert.Contains("14,770,033,664", said.Output);
        var json = Cli.Run(folder, [.. tooLarge, "--json"]);
        Assert.Equal((1, false), (json.Exit, (bool)json.Json["fits"]!));
        Assert.Contains("adapter.kind = qlora", (string)json.Json["next"]!);
        // And taken at its word, it fits.
        Assert.Equal(0, Cli.Run(folder, [.. tooLarge, "--set", "adapter.kind=qlora"]).Exit);
    }

    [Fact]
    public void Run_records_the_bytes_that_plan_predicts()
    {
        var project = Cli.NewProject();
        var planned = Cli.Run(project, "plan", "memopt.json", "--json");
        Assert.Equal(0, planned.Exit);
        var run = Cli.Run(project, "run", "--set", "train.steps=1", "--json");
        Assert.Equal(0, run.Exit);
        var ledger = Cli.Run(project, "runs", "show", (string)run.Json["runId"]!, "--json").Json["ledger"]!.AsArray();
        foreach (var name in new[] { "weights", "adapters", "gradients", "optimizer" })
            Assert.Equal(Bytes(ledger, name), Bytes(planned.Json["rows"]!.AsArray(), name));
        Directory.Delete(project, recursive: true);

        static long Bytes(JsonArray rows, string name) =>
            (long)rows.Single(row => (string)row!["name"]! == name)!["bytes"]!;
    }

    [
        Theory,
        InlineData("--gpu", "RTX 9999", "RTX 4090"),
        InlineData("--model", "no/such/place/at/all", "no/such/place"),
        InlineData("--set", "adapter.rank=0", "rank"),
        InlineData("--host", "abc", "--host takes an amount of memory"),
        InlineData("--gpus", "0", "--gpus must be from 1 to 1024"),
        InlineData("--gpu", "-24GiB", "RTX 4090")
    ]
    public void Plan_with_bad_input_names_it(string option, string value, string expected)
    {
        var result = Cli.Run(folder, ["plan", option, value, "--offline"]);
        Assert.Equal(2, result.Exit);
        Assert.Contains(expected, result.Error);
        Assert.DoesNotContain("   at ", result.Error);
    }
}
