using Memopt.Core;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Cli;

/// <summary>The faults of a rank other than the main one. What all ranks find (a faulty config, say) the main rank
/// reports, and its end ends the others; what one rank finds alone it reports itself, a little later.</summary>
internal static class OtherRank
{
    private static readonly TimeSpan mainRankFirst = TimeSpan.FromSeconds(3);

    /// <summary>Called before anything is printed: mpirun gives its ranks a terminal, to which .NET would send control
    /// sequences, and passes on what they print to a file or a pipe.</summary>
    public static void PlainOutput()
    {
        if (
            Environment.GetEnvironmentVariable("OMPI_COMM_WORLD_RANK") is not null
            || Environment.GetEnvironmentVariable("PMI_RANK") is not null
        )
            Environment.SetEnvironmentVariable("TERM", "dumb");
    }

    /// <summary>What a fault begins with on such a rank, once the main rank had the time to report the same; empty on
    /// the main rank.</summary>
    public static string Prefix()
    {
        int rank;
        try
        {
            rank = ProcessEnvironment.RankPlace()?.Rank ?? 0;
        }
        catch (UserFault)
        {
            return ""; // the fault itself
        }
        if (rank == 0)
            return "";
        Thread.Sleep(mainRankFirst);
        return $"rank {rank}: ";
    }
}
