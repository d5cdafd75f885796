using System.CommandLine;
using System.CommandLine.Invocation;
using Memopt.Tool;
using Memopt.Tool.Commands;
using Memopt.Tool.Commands.Runs;

StandardStream.Install();
// The verbs, one file each under Commands/. A fault that the user can mend is a message and an exit code, never a stack trace.
var root = new RootCommand("Fine-tune large language models within the memory you have.\n\nExample:\n  dotnet new memopt-qlora -n MyTune && cd MyTune\n  dotnet memopt run\n  dotnet memopt runs list")
{
    InitCommand.Create(), RunCommand.Create(), SweepCommand.Create(), PlanCommand.Create(), PullCommand.Create(), CacheCommand.Create(), RunsCommand.Create(), UiCommand.Create(), ArtifactsCommand.Create(), AdaptersCommand.Create(),
    EvalCommand.Create(), InferCommand.Create(), DataCommand.Create(), ExportCommand.Create(), DoctorCommand.Create(), ConfigCommand.Create(), GateCommand.Create(), CompletionCommand.Create(),
};
var parsed = root.Parse(args.Length > 0 ? args : ["--help"], CommandLine.Form);
if (CommandLine.Wrong(parsed, args) is { } wrong)
    return Shell.Guard(args.Contains("--json"), () => throw wrong);
using var interrupt = parsed.Action is AsynchronousCommandLineAction ? new Interrupt() : null;
var code = await parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null }, interrupt?.Token ?? default);
return Shell.Ended(code);
