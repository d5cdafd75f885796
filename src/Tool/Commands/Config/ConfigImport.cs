using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.DeepSpeed;

namespace Memopt.Tool.Commands;

/// <summary><c>config import --deepspeed</c>: the settings that a DeepSpeed file is equal to, and what becomes of each
/// of its keys.</summary>
internal sealed class ConfigImport
{
    private readonly Option<string> deepSpeed = new("--deepspeed")
    {
        Description = "The DeepSpeed JSON.",
        HelpName = "ds.json",
        Required = true,
    };
    private readonly Option<int?> gpus = Shell.NumberOption<int>(
        "--gpus",
        "The ranks that will train together, for the batch; 1.",
        "a number from 1 to 64",
        number => number is >= 1 and <= 64
    );
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new ConfigImport().Declare();

    private Command Declare()
    {
        var command = new Command(
            "import",
            "Print the settings that a DeepSpeed JSON is equal to, and on standard error what becomes of each key.\n\n"
                + "Example:\n  dotnet memopt config import --deepspeed ds.json --gpus 8 > memopt.json"
        )
        {
            deepSpeed,
            gpus,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed)
    {
        var file = DeepSpeedFile.Read(parsed.GetValue(deepSpeed)!, parsed.GetValue(gpus) ?? 1);
        if (parsed.GetValue(json))
        {
            Print(file);
            foreach (var refusal in file.Refusals)
                Shell.Tell($"{refusal}");
        }
        else
        {
            Shell.Progress.Write(DeepSpeedTable.Of(file));
            file.ThrowRefusals(failed: true);
            Console.Out.WriteLine(Settings(file).ToJsonString(Shell.Json));
        }
        return file.Refusals.Count > 0 ? 1 : 0;
    }

    private static void Print(DeepSpeedFile file) =>
        Shell.Print(
            new
            {
                settings = Settings(file),
                keys = file.Keys.Select(key => new
                {
                    key = key.Key,
                    value = key.Value is null ? null : JsonNode.Parse(Secrets.Redact(key.Key, key.Value)),
                    outcome = key.Verdict.Outcome,
                    setting = DeepSpeedTable.Settings(key),
                    why = Secrets.Redact(key.Verdict.Why),
                }),
            }
        );

    /// <summary>The settings that the keys decide, as a config has them.</summary>
    private static JsonObject Settings(DeepSpeedFile file)
    {
        var names = file.Assignments.Select(each => each.Assignment.Setting).ToHashSet();
        var sections = ConfigWriter.Write(file.Alone(), setting => names.Contains(setting.Name));
        foreach (var (section, _) in sections.Where(section => section.Value!.AsObject().Count == 0).ToList())
            sections.Remove(section);
        return sections;
    }
}
