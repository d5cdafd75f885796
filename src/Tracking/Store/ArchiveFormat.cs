namespace Memopt.Tracking;

/// <summary>The zip file that carries runs: names of its entries, and what it says of itself.</summary>
internal static class ArchiveFormat
{
    public const string About = "memopt-runs.json",
        Spools = "spool/",
        Logs = "logs/",
        Artifacts = "artifacts/",
        Experiments = "experiments.json";

    public const int Version = 1;

    /// <summary>The content of <see cref="About"/>.</summary>
    public sealed record Header(int Format, DateTimeOffset Made, int Runs);
}
