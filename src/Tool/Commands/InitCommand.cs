using System.CommandLine;
using Memopt.Tool.Cli;

namespace Memopt.Tool.Commands;

/// <summary><c>init</c>: says how a project is begun. Templates write it, so that a project has one
/// beginning.</summary>
internal static class InitCommand
{
    public static Command Create()
    {
        var json = Shell.JsonOption();
        var command = new Command(
            "init",
            "Print the commands that start a project. Writes nothing.\n\nExample:\n  dotnet memopt init"
        )
        {
            json,
        };
        command.SetGuardedAction(
            json,
            parsed =>
            {
                (string What, string Command)[] beginnings =
                [
                    ("the templates, once", "dotnet new install Memopt.Templates"),
                    (
                        "a new project with QLoRA (also memopt-lora, memopt-full, memopt-classifier)",
                        "dotnet new memopt-qlora -n MyTune"
                    ),
                    ("a memopt.json in this folder", "dotnet new memopt-config"),
                ];
                if (parsed.GetValue(json))
                    Shell.Print(
                        beginnings.Select(beginning => new { what = beginning.What, command = beginning.Command })
                    );
                else
                    Console.Out.WriteLine(
                        string.Join('\n', beginnings.Select(beginning => $"# {beginning.What}\n{beginning.Command}"))
                    );
                return 0;
            }
        );
        return command;
    }
}
