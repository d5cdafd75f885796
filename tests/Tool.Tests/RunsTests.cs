using System.Diagnostics;
using Memopt.Tracking;

namespace Memopt.Tool.Tests;

/// <summary>The commands on past runs, as a user types them, over a real run and a second that is followed while it
/// trains.</summary>
public sealed class RunsTests
{
    [Fact]
    public void Runs_commands_find_compare_export_import_and_remove_runs()
    {
        var folder = Cli.NewProject();
        var first = Id(Cli.Run(folder, "run", "--json"));
        var tail = default(Outcome);
        using (
            var training = Cli.Start(
                folder,
                "run",
                "--from-start",
                "--json",
                "--set",
                "train.learningRate=2e-3",
                "--set",
                "tracking.experiment=second"
            )
        )
        {
            Cli.Await(training, "step 1 / ");
            using var follow = Cli.Start(folder, "runs", "tail", "-f", "-n", "1", "--metrics", "loss,eval_loss");
            Assert.Equal(0, Cli.Wait(training).Exit);
            tail = Cli.Wait(follow);
        }
        Assert.Equal(0, tail.Exit);
        Assert.Contains("step 12  loss", tail.Output);
        Assert.Contains("has finished", tail.Error);

        var second = (string)
            Cli.Run(
                    folder,
                    "runs",
                    "search",
                    "--filter",
                    "params.train.learningRate > 1e-3 and metrics.eval_loss is not null order by metrics.loss",
                    "--json"
                )
                .Json.AsArray()
                .Single()!["runId"]!;
        Assert.NotEqual(first, second);
        var csv = Cli.Run(
                folder,
                "runs",
                "list",
                "--columns",
                "run_id,params.train.learningRate,metrics.loss@1",
                "--csv"
            )
            .Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("run_id,params.train.learningRate,metrics.loss@1", csv[0]);
        Assert.StartsWith($"{second},0.002,", csv[1]);
        Assert.StartsWith($"{first},0.001,", csv[2]);
        var page = Cli.Run(folder, "runs", "list", "--limit", "1", "--json");
        var next = page.Error.Split("--page ")[1].Trim();
        Assert.Equal(
            first,
            (string?)Cli.Run(folder, "runs", "list", "--limit", "1", "--page", next, "--json").Json[0]!["runId"]
        );

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
        Assert.Equal(12, (int)shown["metrics"]!["loss"]!["lastStep"]!);

        Assert.Equal(0, Cli.Run(folder, "runs", "doctor").Exit);
        Assert.Equal(0, Cli.Run(folder, "runs", "backup", "all.zip").Exit);
        Assert.Contains(
            "2 runs brought in, 0 were here",
            Cli.Run(folder, "runs", "import", "all.zip", "--store", "copy/store").Error
        );
        Assert.Equal(2, Cli.Run(folder, "runs", "list", "--store", "copy/store", "--json").Json.AsArray().Count);

        // What a training printed goes where its run goes.
        string Log(string store, string id) => Path.Combine(folder, store, "logs", id + ".txt");
        Assert.Contains("step 12 / 12  loss", File.ReadAllText(Log(".memopt/store", first)));
        Assert.Equal(File.ReadAllText(Log(".memopt/store", first)), File.ReadAllText(Log("copy/store", first)));

        // Shown first, done when asked: the run, its checkpoints, and the adapter that only it names.
        var would = Cli.Run(folder, "runs", "gc", "--filter", "experiment = 'second'", "--json").Json;
        Assert.False((bool)would["applied"]!);
        Assert.Equal((1, 1), (would["runs"]!.AsArray().Count, would["artifacts"]!.AsArray().Count));
        Assert.NotEmpty(would["checkpoints"]!.AsArray());
        Assert.Equal(2, Cli.Run(folder, "runs", "list", "--json").Json.AsArray().Count);
        Assert.Equal(0, Cli.Run(folder, "runs", "gc", "--filter", "experiment = 'second'", "--apply").Exit);
        Assert.Equal(first, (string?)Cli.Run(folder, "runs", "list", "--json").Json.AsArray().Single()!["runId"]);
        Assert.False(File.Exists(Log(".memopt/store", second)));
        Assert.Empty(
            Directory.EnumerateFiles(
                Path.Combine(folder, ".memopt/memopt/checkpoints"),
                "*",
                SearchOption.AllDirectories
            )
        );
        Assert.Single(Directory.EnumerateFiles(Path.Combine(folder, ".memopt/artifacts/manifests")));
    }

    [Fact]
    public void Training_whose_store_cannot_be_written_ends_successfully()
    {
        var folder = Cli.NewProject(steps: 2);
        Directory.CreateDirectory(Path.Combine(folder, ".memopt"));
        File.WriteAllText(Path.Combine(folder, ".memopt", "store"), "not a folder");
        var run = Cli.Run(folder, "run", "--json");
        Assert.True(run.Exit == 0, run.Error);
        Assert.Contains("The training goes on", run.Error);
        File.Delete(Path.Combine(folder, ".memopt", "store"));
        Assert.Contains(
            "1 runs brought in",
            Cli.Run(folder, "runs", "import", Path.Combine(folder, ".memopt", "memopt", "unrecorded")).Error
        );
        Assert.Equal(2, (int)Cli.Run(folder, "runs", "list", "--json").Json[0]!["step"]!);
    }

    [DiskFact]
    public void Disk_that_fills_while_the_store_reads_spools_is_reported_at_once()
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        using (var store = new LiteRunStore(Path.Combine(folder, "store")))
        {
            store.Find(new RunQuery()); // the database is there, and small
            using var run = store.Begin(
                new RunStart
                {
                    Id = "many",
                    Experiment = "e",
                    Started = DateTimeOffset.UtcNow,
                    Config = "{}",
                }
            );
            for (var step = 0; step < 40; step++)
                run.Append(
                    new MetricRow(
                        step,
                        Enumerable.Range(0, 500).ToDictionary(metric => $"m{metric}", metric => step + metric / 7.0)
                    )
                );
            run.End(new Memopt.Tracking.Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
        }
        // Disks with room for the spool and a part of the database's log; where exactly they end decides which thread
        // meets it.
        const string disk = """
            cd "$0"; mkdir -p disk
            for size in 560 600 620 640 660 720 740 752; do
                umount disk 2>/dev/null; mount -t tmpfs -o size=${size}k tmpfs disk || exit
                cp -r store disk/
                timeout -s KILL 600 dotnet exec "$1" runs list --store disk/store; echo "full: $?"
            done
            mount -o remount,size=64m disk
            dotnet exec "$1" runs list --store disk/store; echo "free: $?"
            dotnet exec "$1" runs doctor --store disk/store; echo "doctor: $?"
            """;
        using var bash = Process.Start(
            new ProcessStartInfo("unshare", ["--map-root-user", "--mount", "bash", "-c", disk, folder, Cli.Tool])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var seen = Cli.Wait(bash);
        Assert.Equal(
            Enumerable.Repeat("full: 1", 8),
            seen.Output.Split('\n').Where(line => line.StartsWith("full", StringComparison.Ordinal))
        );
        Assert.Contains("cannot be used", seen.Error);
        Assert.Contains("many", seen.Output);
        Assert.Contains("free: 0", seen.Output);
        // Where the disk ended in the midst of LiteDB's own pages the database was made anew from the spools; what is
        // asked for is there either way.
        Assert.Contains("doctor: 0", seen.Output);
    }

    [Fact]
    public void Tail_of_an_interrupted_or_failed_run_reports_its_status()
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        using (var store = new LiteRunStore(Path.Combine(folder, "store")))
        {
            store
                .Begin(
                    new RunStart
                    {
                        Id = "gone",
                        Experiment = "e",
                        Started = DateTimeOffset.UtcNow,
                        Config = "{}",
                    }
                )
                .Dispose();
            using var run = store.Begin(
                new RunStart
                {
                    Id = "ended",
                    Experiment = "e",
                    Started = DateTimeOffset.UtcNow,
                    Config = "{}",
                }
            );
            run.End(new Memopt.Tracking.Outcome(RunStatus.Stopped, "on request") { Ended = DateTimeOffset.UtcNow });
        }
        Assert.Contains("run gone was interrupted", Cli.Run(folder, "runs", "tail", "gone", "--store", "store").Error);
        Assert.Contains(
            "run ended was stopped: on request",
            Cli.Run(folder, "runs", "tail", "ended", "--store", "store").Error
        );
    }

    private static string Id(Outcome run) =>
        run.Exit == 0 ? (string)run.Json["runId"]! : throw new InvalidOperationException(run.Error);
}

/// <summary>A test that mounts a disk of its own, small enough to fill.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class DiskFactAttribute : FactAttribute
{
    private static readonly string? missing = CanMount()
        ? null
        : "needs Linux and the right to mount a tmpfs in a namespace of its own: unshare --map-root-user --mount";

    public DiskFactAttribute() => Skip = missing;

    private static bool CanMount()
    {
        try
        {
            using var tried = Process.Start(
                new ProcessStartInfo(
                    "unshare",
                    ["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", Path.GetTempPath()]
                )
                {
                    RedirectStandardOutput = true,
                    RedirectStandardError = true,
                }
            )!;
            return OperatingSystem.IsLinux() && Cli.Wait(tried).Exit == 0;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return false; // there is no such command
        }
    }
}
