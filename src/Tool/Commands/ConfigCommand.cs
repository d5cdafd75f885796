using System.CommandLine;
using System.Security.Cryptography;
using System.Text;
using Memopt.Trainer;
using Memopt.Trainer.Data;
using Memopt.Trainer.Hub;

namespace Memopt.Tool.Commands;

/// <summary><c>config schema|check|inputs</c>.</summary>
internal static class ConfigCommand
{
    public static Command Create()
    {
        var schema = new Command("schema", "Print the JSON Schema of memopt.json: every setting with type, default, unit and cost.");
        schema.SetAction(_ => Console.Out.Write(RunConfigSchema.Generate()));
        return new Command("config", "Describe and check configs.\n\nExample:\n  dotnet memopt config check memopt.json") { schema, Check(), Inputs() };
    }

    private static Argument<string> FileArgument() => new("config") { Description = "The config file.", DefaultValueFactory = _ => Workplace.DefaultConfig };

    private static Command Check()
    {
        var (file, set, json) = (FileArgument(), new Option<string[]>("--set") { Description = "Change a setting first." }, Shell.JsonOption());
        var check = new Command("check", "Check a config: all problems at once, with line and column.") { file, set, json };
        check.SetAction(parsed => Shell.Guard(parsed.GetValue(json), () =>
        {
            var loaded = RunConfigFile.Read(parsed.GetValue(file)!, parsed.GetValue(set) ?? []);
            if (parsed.GetValue(json))
                Shell.Print(new { ok = true, hash = loaded.Hash, config = RunConfigFile.Write(loaded.Config) });
            else
                Console.Out.WriteLine($"{loaded.File} is in order.");
            return 0;
        }));
        return check;
    }

    /// <summary>What a build needs to know: whether anything that the result depends on has changed.</summary>
    private static Command Inputs()
    {
        var file = FileArgument();
        var output = new Option<string?>("--out") { Description = "Write to this file, only when that changes it." };
        var inputs = new Command("inputs", "List what a fine-tune depends on, with the sha256 of each.\n\nExample:\n  dotnet memopt config inputs memopt.json") { file, output };
        inputs.SetAction(parsed => Shell.Guard(false, () =>
        {
            var config = RunConfigFile.Read(parsed.GetValue(file)!, []);
            var text = new StringBuilder($"tool {Shell.Version}\nsettings {config.Hash}\n");
            if (Model(config) is { Remote: true } model)
                text.Append($"model {model} {config.Config.Model.Revision}\n");     // a pinned commit never changes; a branch is asked for by run
            foreach (var source in config.Config.Data.Train.List.Concat(config.Config.Data.Eval?.List ?? []).Where(source => source.Remote))
                text.Append($"data {source}\n");                               // likewise
            foreach (var path in Files(config))
                text.Append(Hash(path)).Append(' ').Append(Path.GetRelativePath(config.Folder, path)).Append('\n');
            if (parsed.GetValue(output) is not { } target)
                Console.Out.Write(text);
            else if (!File.Exists(target) || File.ReadAllText(target) != text.ToString())
                File.WriteAllText(target, text.ToString());
            return 0;
        }));
        return inputs;
    }

    private static ModelSource Model(LoadedConfig config) => ModelSource.Parse(config.Config.Model.Source, config.Folder);

    private static IEnumerable<string> Files(LoadedConfig config)
    {
        foreach (var path in Dataset.Files(config))
            yield return path;
        var folders = new List<string>();
        if (Model(config) is { Kind: SourceKind.Folder } model)                // the embedded model is the tool's version
            folders.Add(model.Name);
        if (config.Config.Adapter.From is { } from)
            folders.Add(config.Full(from));
        foreach (var path in folders.SelectMany(Directory.EnumerateFiles).Order(StringComparer.Ordinal))
            yield return path;
    }

    private static string Hash(string path)
    {
        using var stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }
}
