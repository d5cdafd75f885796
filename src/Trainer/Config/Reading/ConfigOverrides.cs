using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Settings that the command line changes: <c>--set a.b=value</c>. The value is JSON, or a string when it is
/// not.</summary>
internal sealed class ConfigOverrides(ConfigProblems problems)
{
    private readonly ConfigReader values = new(problems);
    private readonly List<Override> made = [];

    public IReadOnlyList<Override> Made => made;

    /// <summary>The config with one more setting changed, or as it was and a problem.</summary>
    /// <param name="config">The config.</param>
    /// <param name="item">The change: <c>a.b=value</c>.</param>
    /// <param name="from">Where the change comes from.</param>
    public RunConfig Apply(RunConfig config, string item, string from = Override.CommandLine)
    {
        var cut = item.IndexOf('=');
        var name = cut < 0 ? item : item[..cut];
        if (cut < 0 || Setting.Find(name) is not { } setting)
        {
            var message =
                cut < 0
                    ? "needs key=value"
                    : $"names no setting{NearestName.Hint(name, Setting.Names, Setting.Suggest(name))}";
            problems.Add(new($"--set {item}", message, Code: "MEMOPT0002"));
            return config;
        }
        var old = setting.Value(config);
        var before = problems.Count;
        var value = TryRead(setting, old, item[(cut + 1)..]);
        if (problems.Count > before)
            return config;
        var change = new Override(setting.Name, Json(old), Json(value), from);
        if (from == Override.CommandLine || change.Old != change.New)
            made.Add(change);
        return setting.With(config, value);
    }

    /// <summary>The value, or null and a problem when it is no JSON or holds text that is not Unicode.</summary>
    private object? TryRead(Setting setting, object? old, string written)
    {
        try
        {
            return Read(setting, old, written);
        }
        catch (JsonException e)
        {
            var why = e.Message.Split(" LineNumber")[0];
            problems.Add(new(setting.Name, $"is not valid JSON: {why}", Code: "MEMOPT0001"));
        }
        catch (InvalidOperationException e)
        {
            problems.Add(new(setting.Name, $"holds text that is not valid Unicode ({e.Message})", Code: "MEMOPT0001"));
        }
        return null;
    }

    private object? Read(Setting setting, object? old, string written)
    {
        var text = setting.MapKey is { } key ? MapWith(old, key, written) : written;
        var literal =
            setting.Property.PropertyType == typeof(string) ? text != "null" && !text.StartsWith('"') : !IsJson(text);
        var reader = new ConfigText(Encoding.UTF8.GetBytes(literal ? JsonSerializer.Serialize(text) : text)).Reader();
        reader.Read();
        var value = values.Value(
            ref reader,
            setting.Property,
            new SettingContext(setting.Name, problems, CommandLine: true)
        );
        while (reader.Read()) { } // what comes after the value is not ignored
        return value;
    }

    private static string MapWith(object? map, string key, string value)
    {
        var node = (JsonObject)ConfigWriter.Node(map)!;
        try
        {
            node[key] = JsonNode.Parse(value);
        }
        catch (JsonException)
        {
            node[key] = value;
        }
        return node.ToJsonString();
    }

    private static bool IsJson(string text)
    {
        try
        {
            using var document = JsonDocument.Parse(text);
            return true;
        }
        catch (JsonException)
        {
            return false;
        }
    }

    private static string Json(object? value) => ConfigWriter.Node(value)?.ToJsonString() ?? "null";
}
