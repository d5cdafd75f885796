using System.Diagnostics;

namespace Memopt.Tool.Tests;

/// <summary>The commands on past runs, as a user types them, over a real run and a second that is followed while it trains.</summary>
public sealed class RunsTests
{
    [Fact]
    public void Runs_are_found_compared_carried_and_removed()
    {
        var folder = Cli.Workshop();
        var first = Id(Cli.Run(folder, "run", "--json"));
        var tail = default(Outcome);
        using (var training = Cli.Start(folder, "run", "--from-start", "--json", "--set", "train.learningRate=2e-3", "--set", "tracking.experiment=second"))
        {
            while (training.StandardError.ReadLine() is { } line && !line.StartsWith("step", StringComparison.Ordinal))
            {
            }
            using var follow = Cli.Start(folder, "runs", "tail", "-f", "-n", "1", "--metrics", "loss,eval_loss");
            Assert.Equal(0, Cli.Wait(training).Exit);
            tail = Cli.Wait(follow);
        }
        Assert.Equal(0, tail.Exit);
        Assert.Contains("step 40  loss", tail.Output);
        Assert.Contains("has finished", tail.Error);

        var second = (string)Cli.Run(folder, "runs", "search", "--filter", "params.train.learningRate > 1e-3 and metrics.eval_loss is not null order by metrics.loss", "--json").Json.AsArray().Single()!["runId"]!;
        Assert.NotEqual(first, second);
        var csv = Cli.Run(folder, "runs", "list", "--columns", "run_id,params.train.learningRate,metrics.loss@1", "--csv").Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("run_id,params.train.learningRate,metrics.loss@1", csv[0]);
        Assert.StartsWith($"{second},0.002,", csv[1]);
        Assert.StartsWith($"{first},0.001,", csv[2]);
        var page = Cli.Run(folder, "runs", "list", "--limit", "1", "--json");
        var next = page.Error.Split("--page ")[1].Trim();
        Assert.Equal(first, (string?)Cli.Run(folder, "runs", "list", "--limit", "1", "--page", next, "--json").Json[0]!["runId"]);

        var wrong = Cli.Run(folder, "runs", "list", "--filter", "metrics.loss << 1");
        Assert.Equal(2, wrong.Exit);
        Assert.Contains("Character 15", wrong.Error);

        var diff = Cli.Run(folder, "runs", "diff", first, second, "--json").Json.AsArray();
        Assert.Contains(diff, one => (string?)one!["key"] == "train.learningRate" && (string?)one["b"] == "0.002");
        Assert.DoesNotContain(diff, one => (string?)one!["key"] == "adapter.rank");
        var compared = Cli.Run(folder, "runs", "compare", first, second).Output;
        Assert.Contains("train.learningRate", compared);
        Assert.Contains($"b {second}", compared);
        Assert.Contains("│", compared);
        var shown = Cli.Run(folder, "runs", "show", first, "--json").Json;
        Assert.Equal(40, (int)shown["metrics"]!["loss"]!["lastStep"]!);

        Assert.Equal(0, Cli.Run(folder, "runs", "doctor").Exit);
        Assert.Equal(0, Cli.Run(folder, "runs", "backup", "all.zip").Exit);
        Assert.Contains("2 runs brought in, 0 were here", Cli.Run(folder, "runs", "import", "all.zip", "--store", "copy/store").Error);
        Assert.Equal(2, Cli.Run(folder, "runs", "list", "--store", "copy/store", "--json").Json.AsArray().Count);

        // Shown first, done when asked: the run, its checkpoints, and the adapter that only it names.
        var would = Cli.Run(folder, "runs", "gc", "--filter", "experiment = 'second'", "--json").Json;
        Assert.False((bool)would["applied"]!);
        Assert.Equal((1, 1), (would["runs"]!.AsArray().Count, would["artifacts"]!.AsArray().Count));
        Assert.NotEmpty(would["checkpoints"]!.AsArray());
        Assert.Equal(2, Cli.Run(folder, "runs", "list", "--json").Json.AsArray().Count);
        Assert.Equal(0, Cli.Run(folder, "runs", "gc", "--filter", "experiment = 'second'", "--apply").Exit);
        Assert.Equal(first, (string?)Cli.Run(folder, "runs", "list", "--json").Json.AsArray().Single()!["runId"]);
        Assert.Empty(Directory.EnumerateFiles(Path.Combine(folder, ".memopt/memopt/checkpoints"), "*", SearchOption.AllDirectories));
        Assert.Single(Directory.EnumerateFiles(Path.Combine(folder, ".memopt/artifacts/manifests")));
    }

    [Fact]
    public void A_training_ends_well_though_its_store_cannot_be_written()
    {
        var folder = Cli.Workshop();
        Directory.CreateDirectory(Path.Combine(folder, ".memopt"));
        File.WriteAllText(Path.Combine(folder, ".memopt", "store"), "not a folder");
        var run = Cli.Run(folder, "run", "--json");
        Assert.True(run.Exit == 0, run.Error);
        Assert.Contains("The training goes on", run.Error);
        File.Delete(Path.Combine(folder, ".memopt", "store"));
        Assert.Contains("1 runs brought in", Cli.Run(folder, "runs", "import", Path.Combine(folder, ".memopt", "memopt", "unrecorded")).Error);
        Assert.Equal(40, (int)Cli.Run(folder, "runs", "list", "--json").Json[0]!["step"]!);
    }

    private static string Id(Outcome run) => run.Exit == 0 ? (string)run.Json["runId"]! : throw new InvalidOperationException(run.Error);
}
