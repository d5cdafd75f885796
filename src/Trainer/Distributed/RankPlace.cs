using System.Globalization;
using Memopt.Core;

namespace Memopt.Trainer.Distributed;

/// <summary>The place of this process among the ranks of a run, as the launcher that started it states it.</summary>
/// <param name="Rank">From 0.</param>
/// <param name="Size">All ranks: the world.</param>
/// <param name="LocalRank">Number among the ranks of this host, from 0.</param>
/// <param name="LocalSize">Ranks of this host.</param>
/// <param name="Launcher">The launcher's name.</param>
internal sealed record RankPlace(int Rank, int Size, int LocalRank, int LocalSize, string Launcher)
{
    /// <summary>The launcher of MPICH, Intel MPI and MVAPICH.</summary>
    public const string Mpich = "MPICH";

    // The variables of each launcher: rank, size, rank on the host, ranks of the host. Without the last two, all ranks
    // are on this host. srun alone sets SLURM_STEP_NUM_TASKS: the script of sbatch, which has SLURM_PROCID too, is no
    // rank. Sources: torchrun's "Environment Variables", Open MPI's FAQ "running", MPICH's PMI-1, srun(1).
    private static readonly (string Launcher, string Rank, string Size, string LocalRank, string LocalSize)[] known =
    [
        ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        (
            "Open MPI",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE"
        ),
        (Mpich, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    ];

    /// <summary>Whether this process records the run, writes its checkpoints and prints.</summary>
    public bool IsMain => Rank == 0;

    /// <summary>The place that the environment states; null where no launcher started this process.</summary>
    /// <param name="variable">The value of an environment variable, or null.</param>
    /// <exception cref="UserFault">A launcher's variables contradict each other.</exception>
    public static RankPlace? Read(Func<string, string?> variable)
    {
        foreach (var (launcher, rankName, sizeName, localRankName, localSizeName) in known)
        {
            if (variable(rankName) is not { } rankText || variable(sizeName) is not { } sizeText)
                continue;
            var (rank, size) = (Number(rankName, rankText), Number(sizeName, sizeText));
            if (rank >= size)
                throw Contradiction($"{rankName} is {rankText}, and {sizeName} is {sizeText}");
            var localRank = variable(localRankName) is { } local ? Number(localRankName, local) : rank;
            // Slurm writes "4(x2)" for two hosts of four.
            var localSize = variable(localSizeName) is { } all ? Number(localSizeName, all.Split('(', ',')[0]) : size;
            if (localRank >= localSize || localSize > size)
                throw Contradiction(
                    $"{localRankName} is {localRank}, {localSizeName} is {localSize}, and {sizeName} is {size}"
                );
            return new(rank, size, localRank, localSize, launcher);
        }
        return null;
    }

    /// <summary>The CUDA_VISIBLE_DEVICES of this rank: one GPU of those that the process may use.</summary>
    /// <param name="visible">The variable's value, or null.</param>
    /// <exception cref="UserFault">There are fewer GPUs than ranks on this host.</exception>
    public string VisibleDevice(string? visible)
    {
        if (string.IsNullOrWhiteSpace(visible))
            return $"{LocalRank}";
        var devices = visible.Split(',', StringSplitOptions.TrimEntries);
        // A launcher that has chosen already gives each rank one.
        if (devices.Length == 1)
            return devices[0];
        return LocalRank < devices.Length
            ? devices[LocalRank]
            : throw Contradiction(
                $"CUDA_VISIBLE_DEVICES names {devices.Length} GPUs, and this host has {LocalSize} ranks"
            );
    }

    private static int Number(string name, string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : throw Contradiction($"{name} is \"{text}\", which is no number");

    private static UserFault Contradiction(string found) =>
        new(
            "The environment does not say which rank this process is.",
            found: found,
            next: "start the ranks with dotnet memopt run --gpus N, mpirun, srun or torchrun; or unset the variables"
        );
}
