using System.CommandLine;
using Memopt.Trainer;

namespace Memopt.Tool.Commands;

/// <summary><c>config schema|check</c>.</summary>
internal static class ConfigCommand
{
    public static Command Create()
    {
        var schema = new Command("schema", "Print the JSON Schema of memopt.json: every setting with type, default, unit and cost.");
        schema.SetAction(_ => Console.Out.Write(RunConfigSchema.Generate()));

        var file = new Argument<string>("config") { Description = "The config file.", DefaultValueFactory = _ => Workplace.DefaultConfig };
        var set = new Option<string[]>("--set") { Description = "Change a setting first." };
        var json = Shell.JsonOption();
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
        return new Command("config", "Describe and check configs.\n\nExample:\n  dotnet memopt config check memopt.json") { schema, check };
    }
}
