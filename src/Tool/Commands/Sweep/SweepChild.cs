using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.Sweeps;

namespace Memopt.Tool.Commands;

/// <summary>What became of a combination.</summary>
internal sealed record SweepChild(
    int Number,
    string? RunId,
    string Status,
    double? Value,
    int? Steps,
    IReadOnlyDictionary<string, JsonNode?> Parameters,
    string Folder,
    string? Reason,
    bool UpToDate,
    string? EvalData
)
{
    /// <summary>A combination's settings without secrets, for JSON.</summary>
    public static Dictionary<string, JsonNode?> ParametersOf(Combination combination) =>
        combination.Settings.ToDictionary(
            setting => setting.Key,
            setting => Secrets.Tells(setting.Key) ? Secrets.Redacted : JsonNode.Parse(Secrets.Redact(setting.Value))
        );
}
