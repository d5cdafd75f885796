using System.CommandLine;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using Memopt.Tool;
using Memopt.Tool.Commands;
using Memopt.Tool.Commands.Runs;
using Memopt.Trainer;

TerminalText.Guard();
// The verbs, one file each under Commands/. A fault that the user can mend is a message and an exit code, never a stack trace.
var root = new RootCommand("Fine-tune large language models within the memory you have.\n\nExample:\n  dotnet new memopt-qlora -n MyTune && cd MyTune\n  dotnet memopt run\n  dotnet memopt runs list")
{
    RunCommand.Create(), SweepCommand.Create(), PlanCommand.Create(), PullCommand.Create(), CacheCommand.Create(), RunsCommand.Create(), UiCommand.Create(), ArtifactsCommand.Create(), AdaptersCommand.Create(),
    EvalCommand.Create(), InferCommand.Create(), DataCommand.Create(), ExportCommand.Create(), DoctorCommand.Create(), ConfigCommand.Create(), GateCommand.Create(),
};
var parsed = root.Parse(args);
// What is wrong with the arguments of a command is said as any fault is; a group of commands lists them.
if (parsed.CommandResult.Command.Subcommands.Count == 0)
{
    var wrong = parsed.Action is ParseErrorAction ? parsed.Errors.Select(error => error.Message.Split(" as expected type")[0].TrimEnd('.') + ".").ToList() : Empty(parsed.CommandResult);
    if (wrong.Count > 0)
        return Shell.Guard(args.Contains("--json"), () => throw new UserFault(string.Join(" ", wrong), next: $"dotnet memopt {Shell.Verb(parsed.CommandResult)} --help"));
}
using var interrupt = parsed.Action is AsynchronousCommandLineAction ? new Interrupt() : null;
return await parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null }, interrupt?.Token ?? default);

// A variable that a script has not set becomes an empty argument; taken for one that is absent, it would mean another thing, or this folder. A filter may be empty: all match.
static List<string> Empty(CommandResult command) => command.Children.Where(child => child.Tokens.Any(token => token.Value.Length == 0) && child is not OptionResult { Option.Name: "--filter" })
    .Select(child => $"{(child is OptionResult option ? option.Option.Name : ((ArgumentResult)child).Argument.Name)} is empty.").ToList();
