using Memopt.Core;

namespace Memopt.Tool.Launch;

/// <summary>The mpirun of the MPI library that is installed.</summary>
internal static class MpiRun
{
    /// <summary>The command that starts ranks on this host; the program and its arguments follow.</summary>
    /// <param name="ranks">How many; more than the machine has cores are allowed.</param>
    /// <exception cref="UserFault">No MPI is installed.</exception>
    public static string[] Command(int ranks)
    {
        var path =
            ProgramPath.Find("mpirun")
            ?? throw new UserFault(
                "Several ranks on a CPU need MPI, which is not here.",
                found: "no mpirun in PATH",
                next: "sudo apt-get install openmpi-bin"
            );
        // Open MPI refuses root and more ranks than cores, and binds a rank to a core, unless told otherwise; MPICH
        // knows none of the three.
        var target = new FileInfo(path).ResolveLinkTarget(returnFinalTarget: true)?.Name ?? Path.GetFileName(path);
        return target.Contains("hydra", StringComparison.Ordinal) || target.Contains("mpich", StringComparison.Ordinal)
            ? [path, "-n", $"{ranks}"]
            : [path, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", $"{ranks}"];
    }
}
