using System.Diagnostics;

namespace Memopt.Tool.Tests;

/// <summary>A training on several ranks, as a user starts it: by mpirun, or by --gpus; and what becomes of it when a
/// rank or the launcher dies, freezes or is interrupted.</summary>
public sealed class RanksTests
{
    private static readonly string[] mpirun =
    [
        "mpirun.openmpi",
        "--allow-run-as-root",
        "--oversubscribe",
        "--bind-to",
        "none",
        "-n",
        "2",
    ];

    private static readonly string[] ranks = ["run", "--gpus", "2", "--backend", "cpu"];

    [Fact]
    public void Ranks_of_mpirun_train_what_one_process_trains()
    {
        var two = Cli.NewProject();
        var result = Mpi(two, "run", "--json");
        Assert.True(result.Exit == 0, result.Error);
        // Rank 0 alone prints, one result and nothing else.
        Assert.Equal("finished", (string?)result.Json["status"]);
        Same(Cli.Trained, two);
        var run = Assert.Single(Cli.Run(two, "runs", "list", "--json").Json.AsArray())!;
        var id = (string)run["runId"]!;
        var shown = Cli.Run(two, "runs", "show", id, "--json");
        Assert.Equal(Enumerable.Range(1, 12), shown.Json["steps"]!.AsArray().Select(step => (int)step!["step"]!));
        Assert.Contains("rank_1.memory_bytes", shown.Output);
        Assert.Contains(
            "rank 1 of 2, started by Open MPI",
            File.ReadAllText(Path.Combine(two, ".memopt", "store", "logs", $"{id}.rank-1.txt"))
        );
        // The same again is trained already, whoever asks.
        Assert.True((bool)Mpi(two, "run", "--json").Json["upToDate"]!);
    }

    [Fact]
    public void Config_that_is_wrong_is_reported_once_by_rank_0()
    {
        var folder = Cli.NewProject();
        File.WriteAllText(Path.Combine(folder, "memopt.json"), "{ \"train\": { \"stepz\": 3 } }");
        var result = Mpi(folder, "run");
        Assert.NotEqual(0, result.Exit);
        Assert.Single(result.Error.Split('\n'), line => line.Contains("train.stepz is not a setting"));
        folder = Cli.NewProject();
        result = Mpi(folder, "run", "--set", "train.batchSize=1", "--set", "train.microBatch=1");
        Assert.Contains("There are more ranks than sequences in a step.", result.Error);
        Assert.DoesNotContain("rank 1:", result.Error);
    }

    /// <summary>Faults of a rank, of which the run recovers by itself.</summary>
    [Theory, InlineData("KILL", "zero2"), InlineData("STOP", "ddp")]
    public void Rank_that_dies_or_freezes_is_started_again_and_the_bytes_are_the_same(string signal, string strategy)
    {
        // What two ranks train undisturbed, one process trains to the byte (Ranks_of_mpirun_…).
        var stormy = Cli.NewProject();
        using var process = Cli.Start(stormy, [.. ranks, "--json", "--set", $"distributed.strategy={strategy}"]);
        Cli.Await(process, "step 1 / ");
        var rank = Ranks(stormy).Single(rank => rank.Rank == 1);
        var watch = Stopwatch.StartNew();
        Signal(rank.Pid, signal);
        Cli.Await(process, "all ranks start again (1 of 3)");
        var noticed = watch.Elapsed;
        var result = Cli.Wait(process);
        Assert.True(result.Exit == 0, result.Error);
        Same(Cli.Trained, stormy);
        Assert.Empty(Ranks(stormy));
        Assert.Equal(
            "finished",
            (string?)Assert.Single(Cli.Run(stormy, "runs", "list", "--json").Json.AsArray())!["status"]
        );
        Assert.True(noticed < TimeSpan.FromSeconds(60), $"noticed after {noticed}");
    }

    [Fact]
    public void Launcher_that_is_killed_leaves_no_rank()
    {
        var folder = Cli.NewProject();
        var end = Cli.Endless(folder);
        using var process = Cli.Start(folder, ranks);
        Cli.Await(process, "evaluation   ");
        Assert.Equal(2, Ranks(folder).Count);
        process.Kill();
        process.WaitForExit();
        Gone(folder);
        end();
        var resumed = Cli.Run(folder, [.. ranks, "--json"]);
        Assert.True(resumed.Exit == 0, resumed.Error);
        Assert.Single(Cli.Run(folder, "runs", "list", "--json").Json.AsArray());
    }

    [Fact]
    public void Interrupt_ends_all_ranks_after_the_same_step()
    {
        var folder = Cli.NewProject();
        var end = Cli.Endless(folder);
        using var process = Cli.Start(folder, ranks);
        Cli.Await(process, "step 1 / ");
        Cli.Interrupt(process);
        var stopped = Cli.Wait(process);
        end();
        Assert.Equal(130, stopped.Exit);
        Assert.Contains("run again to go on", stopped.Error);
        Assert.Empty(Ranks(folder));
        // One process goes on with what two have begun.
        var again = Cli.Run(folder, "run", "--json");
        Assert.True(again.Exit == 0, again.Error);
        Assert.Contains("goes on after step", again.Error);
    }

    [Fact]
    public void Rank_that_reports_a_fault_is_not_started_again()
    {
        var folder = Cli.NewProject();
        var result = Cli.Run(folder, [.. ranks, "--set", "train.epsilon=0"]);
        Assert.Equal(1, result.Exit);
        Assert.Contains("no longer a number", result.Error);
        Assert.DoesNotContain("start again", result.Error);
        Assert.Empty(Ranks(folder));
    }

    private static Outcome Mpi(string folder, params string[] arguments)
    {
        var command = Cli.Command(folder, arguments);
        var words = command.ArgumentList.Count > 0 ? command.ArgumentList.ToList() : [];
        words.Insert(0, command.FileName);
        command.FileName = mpirun[0];
        command.ArgumentList.Clear();
        foreach (var word in mpirun[1..].Concat(words))
            command.ArgumentList.Add(word);
        command.Environment["MEMOPT_CHECK_RANKS"] = "1";
        using var process = Process.Start(command)!;
        return Cli.Wait(process);
    }

    /// <summary>The processes of the tool that are ranks and work in a folder.</summary>
    private static List<(int Rank, int Pid)> Ranks(string folder)
    {
        var found = new List<(int, int)>();
        foreach (var process in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(process), out var pid))
                continue;
            try
            {
                var command = File.ReadAllText(Path.Combine(process, "cmdline"));
                var place = new FileInfo(Path.Combine(process, "cwd")).LinkTarget;
                if (place != folder || !command.Contains("memopt.dll\0run", StringComparison.Ordinal))
                    continue;
                var rank = File.ReadAllText(Path.Combine(process, "environ"))
                    .Split('\0')
                    .FirstOrDefault(variable => variable.StartsWith("OMPI_COMM_WORLD_RANK=", StringComparison.Ordinal));
                if (rank is not null)
                    found.Add((int.Parse(rank.Split('=')[1]), pid));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // It has just ended.
            }
        }
        return found;
    }

    private static void Gone(string folder)
    {
        for (var waited = Stopwatch.StartNew(); Ranks(folder).Count > 0; Thread.Sleep(50))
            Assert.True(waited.Elapsed < TimeSpan.FromMinutes(10), "ranks go on without their launcher");
    }

    private static void Signal(int pid, string signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", $"{pid}"]);
        kill.WaitForExit();
    }

    private static void Same(string one, string other)
    {
        const string file = ".memopt/memopt/adapter/adapter_model.safetensors";
        Assert.Equal(File.ReadAllBytes(Path.Combine(one, file)), File.ReadAllBytes(Path.Combine(other, file)));
    }
}
