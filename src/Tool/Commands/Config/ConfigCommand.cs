using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Trainer.Config;

namespace Memopt.Tool.Commands;

/// <summary><c>config schema|check|import|inputs</c>.</summary>
internal static class ConfigCommand
{
    public static Command Create()
    {
        var schema = new Command(
            "schema",
            "Print the JSON Schema of memopt.json: every setting with type, default, unit and cost.\n\nExample:\n"
                + "  dotnet memopt config schema > memopt.schema.json"
        );
        schema.SetAction(_ => Console.Out.Write(RunConfigSchema.Generate()));
        return new Command(
            "config",
            "Describe, check and import configs.\n\nExample:\n  dotnet memopt config check memopt.json"
        )
        {
            schema,
            ConfigCheck.Create(),
            ConfigImport.Create(),
            Inputs(),
        };
    }

    public static Argument<string> FileArgument() =>
        new("config") { Description = "The config file.", DefaultValueFactory = _ => CurrentProject.Config };

    private static Command Inputs()
    {
        var file = FileArgument();
        var inputs = new Command(
            "inputs",
            "List the inputs of a fine-tune with their sha256.\n\nExample:\n  dotnet memopt config "
                + "inputs memopt.json"
        )
        {
            file,
        };
        inputs.SetAction(parsed =>
            Shell.Guard(
                false,
                () =>
                {
                    Console.Out.Write(BuildInputs.Content(RunConfigFile.Read(parsed.GetValue(file)!, [])));
                    return 0;
                }
            )
        );
        return inputs;
    }
}
