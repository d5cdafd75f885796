namespace Memopt.Trainer.Config;

/// <summary>A setting that has another value than in the config.</summary>
/// <param name="Key">Its name.</param>
/// <param name="Old">The config's value, as JSON.</param>
/// <param name="New">The value that counts, as JSON.</param>
/// <param name="From">Where that comes from.</param>
internal sealed record Override(string Key, string Old, string New, string From = Override.CommandLine)
{
    public const string CommandLine = "command line";
}
