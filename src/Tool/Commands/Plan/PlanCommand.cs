using System.CommandLine;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>plan</c>: what training will need, before a byte of the weights is downloaded; without a GPU and without
/// libtorch.</summary>
internal sealed class PlanCommand
{
    private readonly Argument<string?> config = new("config")
    {
        Description = "The config file; the default is memopt.json if it exists, else default settings.",
        Arity = ArgumentArity.ZeroOrOne,
    };
    private readonly Option<string?> model = new("--model")
    {
        Description = "A model's name or folder, or a config.json; the default is the config's model.",
    };
    private readonly Option<string?> gpu = new("--gpu")
    {
        Description = "A GPU (\"RTX 4090\") or its memory (24GiB); the default is this machine's GPU.",
    };
    private readonly Option<int?> gpus = Shell.NumberOption<int>(
        "--gpus",
        "Number of GPUs for strategies over several GPUs; the default is 2 (run uses one).",
        "from 1 to 1024",
        number => number is >= 1 and <= 1024
    );
    private readonly Option<string?> host = new("--host")
    {
        Description = "Host memory (64GiB); the default is this machine's, if the GPU is this machine's too.",
    };
    private readonly Option<string[]> set = Shell.SetOption("Override a setting: --set data.maxLength=4096.");
    private readonly Option<bool> offline = Shell.OfflineOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new PlanCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "plan",
            "Show the memory that training will need, row by row, and the memory, speed and longest sequence of each "
                + "strategy.\n\nExample:\n  dotnet memopt plan --model Qwen/Qwen2.5-7B --gpu \"RTX 4090\"\n  QLoRA + "
                + "recompute, both kept   11.92 GiB   fits …"
        )
        {
            config,
            model,
            gpu,
            gpus,
            host,
            set,
            offline,
            json,
        };
        command.Aliases.Add("estimate-memory");
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var written = Config(parsed);
        var target = Target(written.Settings, parsed);
        var spec = ModelSpec.Read(ModelPath(written, parsed, stop));
        var settings = Settle(written, spec, parsed.GetValue(offline), stop);
        var plan = new TargetPlan(settings, spec, target, Batches.Padded(settings.Data.MaxLength));
        var strategies = plan.Strategies(parsed.GetValue(gpus) ?? 2);
        var fault = plan.Fault(strategies);
        if (parsed.GetValue(json))
        {
            Print(plan, strategies, fault);
            return fault is null ? 0 : 1;
        }
        Show(plan, strategies);
        return fault is null ? 0 : throw fault;
    }

    private ProjectConfig Config(ParseResult parsed)
    {
        var overrides = parsed.GetValue(set) ?? [];
        return (parsed.GetValue(config) ?? CurrentProject.ConfigFile) is { } file
            ? RunConfigFile.Read(file, overrides, checkFiles: false, parsed.GetValue(gpus))
            : RunConfigFile.Default(overrides);
    }

    private PlanTarget Target(RunConfig settings, ParseResult parsed)
    {
        var target = PlanTarget.Of(settings, parsed.GetValue(gpu), parsed.GetValue(host));
        return parsed.GetValue(gpus) is > 1 and var several && target.Device.Kind != "cuda"
            ? throw new UserFault(
                $"--gpus {several} needs a card, and there is none here.",
                next: "name one: --gpu \"RTX 4090\""
            )
            : target;
    }

    /// <summary>A config.json, or the folder that holds it.</summary>
    private string ModelPath(ProjectConfig written, ParseResult parsed, CancellationToken stop)
    {
        var named = parsed.GetValue(model) ?? written.Settings.Model.Source;
        var folder = parsed.GetValue(model) is null ? written.Folder : Directory.GetCurrentDirectory();
        var path = Path.GetFullPath(Path.Combine(folder, named));
        if (File.Exists(path))
            return path;
        return PullCommand
            .FetchConfig(
                ModelSource.Parse(named, folder),
                written.Settings.Model.Revision,
                parsed.GetValue(offline),
                stop
            )
            .Folder;
    }

    /// <summary>The settings under which the adapter that training begins with goes on.</summary>
    private static RunConfig Settle(ProjectConfig written, ModelSpec spec, bool offline, CancellationToken stop)
    {
        static void Tell(string stage, string text) => new ConsoleObserver().Stage(stage, text);
        return StartingAdapter
            .Settle(AdapterSource.Locate(written, offline, Tell, stop), spec, text => Tell("adapter", text))
            .Settings;
    }

    private static void Print(TargetPlan planned, IReadOnlyList<Strategy> strategies, UserFault? fault)
    {
        var (plan, spec, target) = (planned.Plan, planned.Spec, planned.Target);
        Shell.Print(
            new
            {
                model = new { type = spec.ModelType, parameters = spec.Parameters },
                device = new { name = target.Name, bytes = target.Device.FreeBytes },
                peakBytes = plan.PeakBytes,
                hostBytes = plan.HostBytes,
                fits = plan.Fits,
                microBatch = plan.Rung.MicroBatch,
                recompute = plan.Rung.Recompute,
                keep = plan.Rung.Keeps,
                offloadActivations = plan.Rung.OffloadActivations,
                offloadOptimizer = plan.Rung.OffloadOptimizer,
                streamLayers = plan.Rung.StreamLayers,
                chosen = plan.Rung.ToString(),
                rows = plan.Rows.Select(row => new
                {
                    name = row.Name,
                    bytes = row.Bytes,
                    place = row.Place,
                    why = row.Why,
                }),
                strategies,
                found = fault?.Found,
                next = fault?.Next,
            }
        );
    }

    private static void Show(TargetPlan planned, IReadOnlyList<Strategy> strategies)
    {
        var (console, plan, spec, target) = (Shell.Output, planned.Plan, planned.Spec, planned.Target);
        var (size, length) = (LedgerTable.Size(target.Device.FreeBytes ?? 0), planned.Length);
        console.MarkupLineInterpolated(
            $"{spec.ModelType}, [bold]{spec.Parameters:N0}[/] parameters; {target.Name}, {size}"
        );
        console.WriteLine();
        console.MarkupLineInterpolated(
            $"[bold]This run:[/] {planned.Chosen}; {plan.Rung.MicroBatch:N0} × {length:N0} tokens at a time"
        );
        console.Write(LedgerTable.Of(plan.Rows, measured: false));
        console.MarkupLineInterpolated(
            $"[bold]Every strategy:[/] peak and speed with 1 × {length:N0} tokens at a time, and how far each goes"
        );
        console.Write(StrategyTable.Of(strategies));
    }
}
