using System.Reflection;
using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Trainer.Config;

/// <summary>The settings of a config that are <see cref="PinnedAttribute">pinned</see>.</summary>
internal static class PinnedSettings
{
    public static JsonObject Write(RunConfig config) =>
        ConfigWriter.Write(config, setting => setting.Property.GetCustomAttribute<PinnedAttribute>() is not null);

    /// <summary>sha256 of the pinned settings.</summary>
    public static string Hash(RunConfig config) => Sha256.OfText(Write(config).ToJsonString());

    /// <summary>Pinned settings that differ between a checkpoint's config (as JSON) and this one, secrets left out: a
    /// checkpoint holds none.</summary>
    public static IReadOnlyList<Override> Differences(string saved, RunConfig now)
    {
        // A setting that is younger than the checkpoint was at its default.
        var before = ConfigWriter.Flat(new RunConfig());
        foreach (var (key, value) in Redacted(saved))
            before[key] = value;
        return
        [
            .. Redacted(Write(now).ToJsonString())
                .Where(pair => before[pair.Key] != pair.Value)
                .Select(pair => new Override(pair.Key, before[pair.Key], pair.Value)),
        ];
    }

    private static Dictionary<string, string> Redacted(string json) =>
        ConfigWriter.Flat(JsonNode.Parse(Secrets.Redact(json))!);
}
