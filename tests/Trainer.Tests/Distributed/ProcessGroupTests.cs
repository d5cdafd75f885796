using System.Diagnostics;
using Memopt.Core;
using Memopt.Trainer.Distributed;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>The verbs of process groups, between real processes that mpirun starts.</summary>
public sealed class ProcessGroupTests
{
    private static readonly bool full = Environment.GetEnvironmentVariable("MEMOPT_TESTS_FULL") == "1";

    /// <summary>Every start of ranks takes seconds: some worlds only with --full.</summary>
    public static TheoryData<string, int> Worlds =>
        full
            ? new()
            {
                { "openmpi", 1 },
                { "openmpi", 2 },
                { "openmpi", 3 },
                { "openmpi", 4 },
                { "mpich", 3 },
            }
            : new() { { "openmpi", 3 }, { "mpich", 2 } };

    [Theory, MemberData(nameof(Worlds))]
    public void Mpi_verbs_are_exact_for_all_types(string library, int ranks)
    {
        var (code, output, _) = MpiRun(ranks, "verbs", library);
        Assert.True(code == 0, output);
        for (var rank = 0; rank < ranks; rank++)
            Assert.Contains($"rank {rank} of {ranks}: all verbs", output);
    }

    /// <summary>Two ranks, which the tests of the tool have each time, only with --full: they train as long as three.
    /// </summary>
    public static TheoryData<int> Trained => full ? new(2, 3) : new(3);

    [Theory, MemberData(nameof(Trained))]
    public void Data_parallel_ranks_train_what_one_rank_trains(int ranks)
    {
        var folder = Directory.CreateTempSubdirectory("memopt ranks").FullName;
        var (code, output, _) = MpiRun(ranks, "train", "openmpi", folder);
        Assert.True(code == 0, output);
        for (var rank = 0; rank < ranks; rank++)
            Assert.Contains($"rank {rank} of {ranks}: all cases", output);
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Ranks_that_diverge_end_with_a_sentence_that_names_rank_and_verb()
    {
        var (code, output, _) = MpiRun(2, "diverge");
        Assert.NotEqual(0, code);
        Assert.Contains("rank 0 calls AllReduce of 3 elements of Float32", output);
        Assert.Contains("rank 1 calls AllGatherNumbers", output);
        (code, output, _) = MpiRun(3, "sizes");
        Assert.NotEqual(0, code);
        Assert.Contains("rank 2 calls AllReduce of 5 elements", output);
        (code, output, _) = MpiRun(2, "exchange");
        Assert.NotEqual(0, code);
        Assert.Contains("rank 0 sends 16 bytes to rank 1, which expects 20", output);
    }

    [Fact]
    public void Rank_that_is_frozen_is_reported_at_the_limit_and_ends_all()
    {
        var (code, output, seconds) = MpiRun(3, "freeze");
        Assert.NotEqual(0, code);
        Assert.Contains("waited for the others longer than 3 s", output);
        Assert.True(seconds < 60, $"{seconds} s");
    }

    [Theory, InlineData("die"), InlineData("crash")]
    public void Rank_that_is_killed_or_crashes_ends_all(string how)
    {
        var (code, output, seconds) = MpiRun(3, how);
        Assert.NotEqual(0, code);
        Assert.True(seconds < 60, $"{seconds} s\n{output}");
    }

    [Fact]
    public void Single_group_copies_and_refuses_as_an_engine_does()
    {
        using var scope = NewDisposeScope();
        using var group = new CheckedProcessGroup(new SingleProcessGroup());
        var (input, output) = (arange(6).to(float32), zeros(6));
        group.AllGather(input, output);
        Assert.True(input.eq(output).all().item<bool>());
        group.ReduceScatter(input.add(1), output);
        Assert.True(output.eq(input.add(1)).all().item<bool>());
        var received = zeros(6);
        group.Exchange([new(input, 0)], [new(received, 0)]);
        Assert.True(received.eq(input).all().item<bool>());
        Assert.Equal([3L, 4], group.Agree([3, 4], ReduceOp.Sum));
        Assert.Throws<ArgumentException>(() => group.Broadcast(input, 1));
        Assert.Throws<ArgumentException>(() => group.AllReduce(zeros(2, 3).t()));
        Assert.Throws<ArgumentException>(() => group.AllGather(input, zeros(7)));
        Assert.Throws<UserFault>(() => group.Exchange([new(input, 0)], []));
    }

    private static (int Code, string Output, double Seconds) MpiRun(
        int ranks,
        string scenario,
        string library = "openmpi",
        params string[] more
    )
    {
        string[] launcher =
            library == "mpich"
                ? ["mpiexec.mpich"]
                : ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"];
        var start = new ProcessStartInfo(
            launcher[0],
            [
                .. launcher[1..],
                "-n",
                $"{ranks}",
                "dotnet",
                typeof(ProcessGroupTests).Assembly.Location,
                "ranks",
                library,
                scenario,
                .. more,
            ]
        )
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["OMP_NUM_THREADS"] = "1";
        // Shared memory alone: the machine may have no network.
        start.Environment["OMPI_MCA_btl"] = "self,vader";
        start.Environment["OMPI_MCA_pml"] = "ob1";
        var watch = Stopwatch.StartNew();
        using var process = Process.Start(start)!;
        var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        if (!process.WaitForExit(240_000))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"{scenario} with {ranks} ranks did not end");
        }
        return (process.ExitCode, output.Result + error.Result, watch.Elapsed.TotalSeconds);
    }
}
