using System.CommandLine;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>plan</c>: what training will need, before a byte of the weights is downloaded; without a GPU and without
/// libtorch.</summary>
internal static class PlanCommand
{
    public static Command Create()
    {
        var config = new Argument<string?>("config")
        {
            Description = "Config file; memopt.json when it is there, else the defaults.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        var model = new Option<string?>("--model")
        {
            Description = "In place of the config's: a name, a folder, or a config.json.",
        };
        var gpu = new Option<string?>("--gpu")
        {
            Description = "A card (\"RTX 4090\") or its memory (24GiB); the one that is here when left out.",
        };
        var gpus = Shell.NumberOption<int>(
            "--gpus",
            "GPUs for the strategies that spread a model over several, 2 when left out (run uses one).",
            "from 1 to 1024",
            number => number is >= 1 and <= 1024
        );
        var host = new Option<string?>("--host")
        {
            Description =
                "Host memory beside the card (64GiB); this machine's when left out and the card is this machine's.",
        };
        var set = Shell.SetOption("Override a setting: --set data.maxLength=4096.");
        var (offline, json) = (Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command(
            "plan",
            "Show the memory that training will need, row by row, and what each strategy needs and reaches on a "
                + "card.\n\nExample:\n  dotnet memopt plan --model Qwen/Qwen2.5-7B --gpu \"RTX 4090\"\n  QLoRA + "
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
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                            Plan(
                                parsed.GetValue(config),
                                parsed.GetValue(model),
                                parsed.GetValue(gpu),
                                parsed.GetValue(gpus),
                                parsed.GetValue(host),
                                parsed.GetValue(set) ?? [],
                                parsed.GetValue(offline),
                                parsed.GetValue(json),
                                stop
                            )
                    )
                )
        );
        return command;
    }

    private static int Plan(
        string? file,
        string? model,
        string? card,
        int? gpus,
        string? host,
        string[] overrides,
        bool offline,
        bool json,
        CancellationToken stop
    )
    {
        file ??= CurrentProject.ConfigFile;
        var written = file is null
            ? RunConfigFile.Default(overrides)
            : RunConfigFile.Read(file, overrides, checkFiles: false);
        var config = written.Settings;
        var (device, where) = Device(config, card, host);
        if (gpus > 1 && device.Kind != "cuda")
            throw new UserFault(
                $"--gpus {gpus} needs a card, and there is none here.",
                next: "name one: --gpu \"RTX 4090\""
            );
        var folder = model is null ? written.Folder : Directory.GetCurrentDirectory();
        var spec = ModelSpec.Read(Located(model ?? config.Model.Source, folder, config.Model.Revision, offline, stop));
        static void Tell(string stage, string text) => new ConsoleObserver().Stage(stage, text);
        config = StartingAdapter
            .Settle(AdapterSource.Locate(written, offline, Tell, stop), spec, text => Tell("adapter", text))
            .Settings;
        var length = Trainer.Data.Batches.Padded(config.Data.MaxLength);
        var plan = MemoryPlan.For(config, spec, device, length);
        var strategies = Strategies.Of(config, spec, device, length, gpus ?? 2);
        var fault = plan.Fits ? null : Fault(plan, strategies, device, where, length);
        if (json)
        {
            Shell.Print(
                new
                {
                    model = new { type = spec.ModelType, parameters = spec.Parameters },
                    device = new { name = where, bytes = device.FreeBytes },
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
            return fault is null ? 0 : 1;
        }
        else
        {
            var console = Shell.Output;
            var size = LedgerTable.Size(device.FreeBytes ?? 0);
            console.MarkupLineInterpolated(
                $"{spec.ModelType}, [bold]{spec.Parameters:N0}[/] parameters; {where}, {size}"
            );
            console.WriteLine();
            console.MarkupLineInterpolated(
                $"[bold]This run:[/] {Chosen(config, plan)}; {plan.Rung.MicroBatch:N0} × {length:N0} tokens at a time"
            );
            console.Write(LedgerTable.Of(plan.Rows, measured: false));
            console.MarkupLineInterpolated(
                $"[bold]Every strategy:[/] peak and speed with 1 × {length:N0} tokens at a time, and how far each goes"
            );
            console.Write(Table(strategies));
        }
        return fault is null ? 0 : throw fault;
    }

    /// <summary>What a run would be on, and its name: the card named, or the one that is here, or else this machine's
    /// CPU; within the config's budgets.</summary>
    /// <param name="config">The settings.</param>
    /// <param name="card">A card or its memory, or null.</param>
    /// <param name="host">Host memory, or null for this machine's where the card is this machine's.</param>
    /// <param name="onCpu">Whether the card that is here is left alone.</param>
    public static (PlanDevice Device, string Name) Device(
        RunConfig config,
        string? card = null,
        string? host = null,
        bool onCpu = false
    )
    {
        var hostBytes = host is null
            ? (long?)null
            : Gpus.Memory(host)
                ?? throw new UserFault("--host takes an amount of memory.", found: host, next: "--host 64GiB");
        var gpu =
            card is not null ? Gpus.Find(card)
            : !onCpu && Cuda.TotalBytes() is { } bytes && Cuda.DeviceName() is { } name
                ? new Gpu(name, (int)(bytes >> 20), Cuda.Capability() >= 80)
            : null;
        // Without a card the budget, or else the host: the run would be on its CPU, in fp32.
        var device = gpu is not null
            ? PlanDevice.Of(gpu, config.Model.Dtype)
            : new PlanDevice(
                "cpu",
                hostBytes ?? HostMemory.FreeBytes(),
                config.Model.Dtype is DType.Bfloat16 or DType.Float16 ? 2 : 4
            );
        if (config.Memory.BudgetGiB is { } gib)
            device = device.Within(gib);
        if (gpu is null)
            return (device, host is null ? "this machine's CPU" : "a CPU");
        var there = hostBytes ?? (card is null ? HostMemory.FreeBytes() : null);
        var most = config.Memory.HostBudgetGiB is { } budget ? (long)(budget * (1L << 30)) : (long?)null;
        return (device with { HostBytes = there is null || most < there ? most ?? there : there }, gpu.Name);
    }

    internal static FittedTable Table(IReadOnlyList<Strategy> strategies)
    {
        var table = new FittedTable("--json")
            .AddColumn("strategy")
            .AddColumn("peak", right: true)
            .AddColumn("", rank: 1)
            .AddColumn("speed", right: true)
            .AddColumn("longest sequence", right: true)
            .AddColumn("largest micro-batch", right: true);
        foreach (var s in strategies)
        {
            table.AddRow(
                s.Name,
                LedgerTable.Size(s.PeakBytes),
                s.Fits ? "[green]fits[/]" : "[red]too large[/]",
                $"{s.RelativeSpeed:F2}",
                $"{s.MaxSequence:N0}",
                $"{s.MaxMicroBatch:N0}"
            );
        }
        return table;
    }

    /// <summary>What would fit in place of a plan that does not.</summary>
    public static UserFault Fault(
        MemoryPlan plan,
        IReadOnlyList<Strategy> strategies,
        PlanDevice device,
        string where,
        int length
    )
    {
        var single = strategies.Where(s => s.Devices == 1).ToList();
        var (other, smallest) = (
            single.Where(s => s.Fits).MaxBy(s => s.RelativeSpeed),
            single.MinBy(s => s.PeakBytes)!
        );
        var host = plan.HostFits
            ? ""
            : $", and {LedgerTable.Size(plan.HostBytes)} of {LedgerTable.Size(device.HostBytes ?? 0)} on the host";
        return new(
            $"This does not fit: {LedgerTable.Size(plan.PeakBytes)} of {LedgerTable.Size(device.FreeBytes ?? 0)} "
                + $"on {where}{host}, with all given up that the settings allow.",
            found: other is null
                ? $"the smallest strategy, {smallest.Name}, needs {LedgerTable.Size(smallest.PeakBytes)} at "
                    + $"{length:N0} tokens"
                : $"{other.Name} would fit: {LedgerTable.Size(other.PeakBytes)}",
            next: other is not null ? $"set adapter.kind = {KindOf(other.Name)} and leave memory's settings out"
                : smallest.MaxSequence > 1
                    ? $"set data.maxLength to at most {smallest.MaxSequence} with adapter.kind = qlora, or take a "
                        + "larger card"
                : $"take a card with {LedgerTable.Size(smallest.PeakBytes)} or more (--gpu), or a smaller model"
        )
        {
            Failed = true,
        };
    }

    private static string KindOf(string strategy) =>
        strategy.StartsWith("QLoRA", StringComparison.Ordinal) ? "qlora"
        : strategy.StartsWith("LoRA", StringComparison.Ordinal) ? "lora"
        : "none";

    public static string Chosen(RunConfig config, MemoryPlan plan)
    {
        var method = config.Adapter.Kind switch
        {
            AdapterKind.Qlora => "QLoRA",
            AdapterKind.Lora => "LoRA",
            _ => "full fine-tuning",
        };
        return $"{method}, {plan.Rung}";
    }

    /// <summary>A config.json, or the folder that holds it.</summary>
    private static string Located(string model, string folder, string? revision, bool offline, CancellationToken stop)
    {
        var path = Path.GetFullPath(Path.Combine(folder, model));
        if (File.Exists(path))
            return path;
        return PullCommand.FetchConfig(ModelSource.Parse(model, folder), revision, offline, stop).Folder;
    }
}
