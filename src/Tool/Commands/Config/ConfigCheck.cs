using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;

namespace Memopt.Tool.Commands;

/// <summary><c>config check</c>: what a build wants to know before anything is trained: every problem of the config at
/// once, a sample of the data, and whether the memory that there will be is enough. Without libtorch and without the
/// weights.
/// </summary>
internal sealed class ConfigCheck
{
    private readonly Argument<string> file = ConfigCommand.FileArgument();
    private readonly Option<string[]> set = Shell.SetOption("Override a setting: --set train.steps=500 (repeatable).");
    private readonly Option<string?> gpu = new("--gpu")
    {
        Description = "The GPU that will train (\"RTX 4090\", 24GiB): a plan that does not fit is a warning.",
    };
    private readonly Option<double?> budget = Shell.NumberOption<double>(
        "--budget",
        "GiB that training may take: a plan that does not fit is an error.",
        "a number of GiB above 0",
        number => number is > 0 and < 1e6
    );
    private readonly Option<string?> inputs = new("--inputs")
    {
        Description = "Write the hashes of everything that the result depends on to this file, if they have changed.",
    };
    private readonly Option<string?> watch = new("--watch")
    {
        Description = "Write the input files and folders of the config to this file; a folder ends with /.",
    };
    private readonly Option<bool> offline = Shell.OfflineOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new ConfigCheck().Declare();

    private Command Declare()
    {
        var command = new Command(
            "check",
            "Check a config, a sample of its data and its memory. Reports all problems with line and column.\n\n"
                + "Example:\n  dotnet memopt config check memopt.json --gpu \"RTX 4090\"\n  memopt.json is in order: "
                + "11.92 GiB of 24.0 GiB"
        )
        {
            file,
            set,
            gpu,
            budget,
            inputs,
            watch,
            offline,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var config = RunConfigFile.Read(parsed.GetValue(file)!, parsed.GetValue(set) ?? []);
        var inspection = new ConfigInspection(config, parsed.GetValue(offline), stop);
        inspection.Run(parsed.GetValue(gpu), parsed.GetValue(budget));
        IReadOnlyList<Problem> problems = [.. config.DeepSpeed?.Warnings ?? [], .. inspection.Problems];
        if (problems.Any(problem => !problem.Warning))
            throw new UserFault(
                $"{config.File} cannot be trained as it is.",
                next: "docs/diagnostics.md says more of each code"
            )
            {
                Problems = problems,
            };
        if (parsed.GetValue(inputs) is { } content)
            WriteChanged(content, BuildInputs.Content(config));
        if (parsed.GetValue(watch) is { } list)
            WriteChanged(list, BuildInputs.Watched(config));
        if (parsed.GetValue(json))
            Print(config, problems, inspection.Plan);
        else
            Show(config, problems, inspection.Plan);
        return 0;
    }

    /// <summary>Writes a file only when that changes it: a build goes by its time.</summary>
    private static void WriteChanged(string path, string text)
    {
        if (File.Exists(path) && File.ReadAllText(path) == text)
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
        File.WriteAllText(path, text);
    }

    private static void Print(ProjectConfig config, IReadOnlyList<Problem> problems, MemoryPlan? plan) =>
        Shell.Print(
            new
            {
                ok = true,
                hash = config.Hash,
                peakBytes = plan?.PeakBytes,
                problems = Shell.Clean(problems),
                config = JsonNode.Parse(Secrets.Redact(config.Json)),
            }
        );

    private static void Show(ProjectConfig config, IReadOnlyList<Problem> problems, MemoryPlan? plan)
    {
        foreach (var problem in problems)
            Shell.Tell($"{problem}");
        Console.Out.WriteLine(
            $"{config.File} is in order"
                + $"{(plan is null ? "" : $": {LedgerTable.Size(plan.PeakBytes)}, {plan.Rung}")}."
        );
    }
}
