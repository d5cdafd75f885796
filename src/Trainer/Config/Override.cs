namespace Memopt.Trainer.Config;

/// <summary>A setting changed on the command line.</summary>
internal sealed record Override(string Key, string Old, string New);
