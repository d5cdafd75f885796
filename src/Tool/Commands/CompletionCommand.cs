using System.CommandLine;
using Memopt.Tool.Cli;

namespace Memopt.Tool.Commands;

/// <summary><c>completion bash|zsh|pwsh</c>: a script by which a shell completes commands, options and settings; it
/// asks the tool, so it is never out of date.</summary>
internal static class CompletionCommand
{
    public static Command Create()
    {
        var shell = new Argument<string>("shell") { Description = "bash, zsh or pwsh." };
        shell.AcceptOnlyFromAmong("bash", "zsh", "pwsh");
        var command = new Command(
            "completion",
            "Print a completion script for a shell.\n\nExample:\n  eval \"$(dotnet memopt "
                + "completion bash)\"      # in ~/.bashrc"
        )
        {
            shell,
        };
        command.SetAction(parsed =>
            Shell.Guard(
                false,
                () =>
                {
                    using var script = typeof(CompletionCommand).Assembly.GetManifestResourceStream(
                        $"completion/memopt.{parsed.GetValue(shell)}"
                    )!;
                    using var reader = new StreamReader(script);
                    Console.Out.Write(reader.ReadToEnd());
                    return 0;
                }
            )
        );
        return command;
    }
}
