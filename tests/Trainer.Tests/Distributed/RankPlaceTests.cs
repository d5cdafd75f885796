using Memopt.Core;
using Memopt.Trainer.Distributed;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>The variables of launchers, as their documents state them.</summary>
public sealed class RankPlaceTests
{
    [Theory]
    [InlineData("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4", 5, 8, 1, 4, "torchrun")]
    [InlineData(
        "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2",
        2,
        4,
        0,
        2,
        "Open MPI"
    )]
    [InlineData("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2", 1, 2, 1, 2, "MPICH")]
    [InlineData("PMI_RANK=1 PMI_SIZE=3", 1, 3, 1, 3, "MPICH")]
    [InlineData(
        "SLURM_PROCID=6 SLURM_STEP_NUM_TASKS=8 SLURM_LOCALID=2 SLURM_STEP_TASKS_PER_NODE=4(x2)",
        6,
        8,
        2,
        4,
        "Slurm"
    )]
    public void Place_is_read_from_the_variables_of_each_launcher(
        string variables,
        int rank,
        int size,
        int localRank,
        int localSize,
        string launcher
    ) => Assert.Equal(new(rank, size, localRank, localSize, launcher), Read(variables));

    /// <summary>The script of sbatch has SLURM_PROCID and SLURM_NTASKS, and is one process.</summary>
    [Theory, InlineData(""), InlineData("SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_LOCALID=0"), InlineData("RANK=3")]
    public void Process_that_no_launcher_started_has_no_place(string variables) => Assert.Null(Read(variables));

    [Theory]
    [InlineData("RANK=8 WORLD_SIZE=8", "RANK is 8, and WORLD_SIZE is 8")]
    [InlineData("RANK=-1 WORLD_SIZE=8", "RANK is \"-1\", which is no number")]
    [InlineData("RANK=0 WORLD_SIZE=two", "WORLD_SIZE is \"two\"")]
    [InlineData("RANK=0 WORLD_SIZE=2 LOCAL_RANK=4 LOCAL_WORLD_SIZE=2", "LOCAL_RANK is 4")]
    public void Variables_that_contradict_each_other_are_refused_by_name(string variables, string found) =>
        Assert.Contains(found, Assert.Throws<UserFault>(() => Read(variables)).Found);

    [Theory]
    [InlineData(null, 1, "1")]
    [InlineData("4,5,6,7", 2, "6")]
    [InlineData("GPU-1a, GPU-2b", 1, "GPU-2b")]
    [InlineData("3", 1, "3")] // the launcher has chosen
    public void Rank_takes_one_GPU_of_those_that_are_visible(string? visible, int localRank, string device) =>
        Assert.Equal(device, new RankPlace(localRank, 4, localRank, 4, "torchrun").VisibleDevice(visible));

    [Fact]
    public void Host_with_fewer_GPUs_than_ranks_is_refused() =>
        Assert.Contains(
            "names 2 GPUs, and this host has 4 ranks",
            Assert.Throws<UserFault>(() => new RankPlace(3, 4, 3, 4, "torchrun").VisibleDevice("0,1")).Found
        );

    private static RankPlace? Read(string variables)
    {
        var values = variables
            .Split(' ', StringSplitOptions.RemoveEmptyEntries)
            .Select(variable => variable.Split('=', 2))
            .ToDictionary(pair => pair[0], pair => pair[1]);
        return RankPlace.Read(name => values.GetValueOrDefault(name));
    }
}
