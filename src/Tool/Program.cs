using System.CommandLine;
using Memopt.Tool.Commands;
using Memopt.Tool.Commands.Runs;

// The verbs, one file each under Commands/. A fault that the user can mend is a message and an exit code, never a stack trace.
var root = new RootCommand("Fine-tune large language models within the memory you have.\n\nExample:\n  dotnet new memopt-qlora -n MyTune && cd MyTune\n  dotnet memopt run\n  dotnet memopt runs list")
{
    RunCommand.Create(), SweepCommand.Create(), PlanCommand.Create(), PullCommand.Create(), CacheCommand.Create(), RunsCommand.Create(), ArtifactsCommand.Create(), EvalCommand.Create(), InferCommand.Create(), DataCommand.Create(), ExportCommand.Create(), DoctorCommand.Create(), ConfigCommand.Create(),
};
return await root.Parse(args).InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
