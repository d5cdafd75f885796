using System.CommandLine;
using System.CommandLine.Invocation;
using System.Runtime.CompilerServices;
using Memopt.Tool.Cli;
using Memopt.Tool.Commands;
using Memopt.Tool.Launch;
using Memopt.Tracking;

namespace Memopt.Tool;

internal static class Program
{
    public static int Main(string[] args) => OpenFiles.Refused() ?? Run(args);

    /// <summary>A fault that the user can fix is a message and an exit code, never a stack trace. Apart from Main, so
    /// that its assemblies are loaded only now.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Run(string[] args)
    {
        OtherRank.PlainOutput();
        StandardStream.Install();
        DamagedDatabase.OutliveFinalizers();
        TerminalText.Guard();
        var parsed = Root().Parse(args.Length > 0 ? args : ["--help"], CommandLine.Form);
        if (CommandLine.Wrong(parsed, args) is { } wrong)
            return Shell.Guard(args.Contains("--json"), () => throw wrong);
        using var interrupt = parsed.Action is AsynchronousCommandLineAction ? new Interrupt() : null;
        if (interrupt is not null)
            RankLink.Connect(interrupt.Request);
        var invocation = new InvocationConfiguration
        {
            EnableDefaultExceptionHandler = false,
            ProcessTerminationTimeout = null,
        };
        var code = parsed.InvokeAsync(invocation, interrupt?.Token ?? default).GetAwaiter().GetResult();
        RankLink.Current?.Leave();
        return Shell.Ended(code);
    }

    /// <summary>The verbs, one file each under Commands/.</summary>
    public static RootCommand Root() =>
        new(
            "Fine-tune large language models within the memory you have.\n\nExample:\n  dotnet new memopt-qlora "
                + "-n MyTune && cd MyTune\n  dotnet memopt run\n  dotnet memopt runs list"
        )
        {
            InitCommand.Create(),
            RunCommand.Create(),
            SweepCommand.Create(),
            PlanCommand.Create(),
            PullCommand.Create(),
            CacheCommand.Create(),
            RunsCommand.Create(),
            UiCommand.Create(),
            ArtifactsCommand.Create(),
            AdaptersCommand.Create(),
            EvalCommand.Create(),
            InferCommand.Create(),
            DataCommand.Create(),
            ExportCommand.Create(),
            DoctorCommand.Create(),
            ConfigCommand.Create(),
            GateCommand.Create(),
            CompletionCommand.Create(),
        };
}
