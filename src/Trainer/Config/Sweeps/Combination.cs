using Memopt.Core;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>One combination of a sweep.</summary>
/// <param name="Number">From 1.</param>
/// <param name="Settings">What it sets, values as JSON.</param>
/// <param name="Identity">What it trains and how that is judged: sha256 of the config's pinned settings, and those of
/// its own that are not pinned, such as data.eval.</param>
internal sealed record Combination(int Number, IReadOnlyList<KeyValuePair<string, string>> Settings, string Identity)
{
    public override string ToString() =>
        string.Join("  ", Settings.Select(setting => $"{setting.Key}={Secrets.Redact(setting.Key, setting.Value)}"));
}
