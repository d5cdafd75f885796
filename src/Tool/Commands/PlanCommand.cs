using System.CommandLine;
using Memopt.Tool.Views;
using Memopt.Trainer;
using Memopt.Trainer.Hub;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>plan</c>: what training will need, before a byte of the weights is downloaded; without a GPU and without libtorch.</summary>
internal static class PlanCommand
{
    public static Command Create()
    {
        var config = new Argument<string?>("config") { Description = "Config file; memopt.json when it is there, else the defaults.", Arity = ArgumentArity.ZeroOrOne };
        var model = new Option<string?>("--model") { Description = "In place of the config's: a name, a folder, or a config.json." };
        var gpu = new Option<string?>("--gpu") { Description = "A card (\"RTX 4090\") or its memory (24GiB); the one that is here when left out." };
        var gpus = new Option<int>("--gpus") { Description = "GPUs for the strategies that spread a model over several (run uses one).", DefaultValueFactory = _ => 2 };
        var host = new Option<string?>("--host") { Description = "Host memory beside the card (64GiB); this machine's when left out and the card is this machine's." };
        var set = new Option<string[]>("--set") { Description = "Override a setting: --set data.maxLength=4096.", AllowMultipleArgumentsPerToken = false };
        var (offline, json) = (Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command("plan", "Show the memory that training will need, row by row, and what each strategy needs and reaches on a card.\n\nExample:\n  dotnet memopt plan --model Qwen/Qwen2.5-7B --gpu \"RTX 4090\"\n  QLoRA + recompute, both kept   11.92 GiB   fits …") { config, model, gpu, gpus, host, set, offline, json };
        command.Aliases.Add("estimate-memory");
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
            Plan(parsed.GetValue(config), parsed.GetValue(model), parsed.GetValue(gpu), parsed.GetValue(gpus), parsed.GetValue(host), parsed.GetValue(set) ?? [], parsed.GetValue(offline), parsed.GetValue(json), stop))));
        return command;
    }

    private static int Plan(string? file, string? model, string? card, int gpus, string? host, string[] overrides, bool offline, bool json, CancellationToken stop)
    {
        var written = file is not null || File.Exists(Workplace.DefaultConfig) ? RunConfigFile.Read(file ?? Workplace.DefaultConfig, overrides, checkFiles: false) : RunConfigFile.Default(overrides);
        var config = written.Config;
        var spec = ModelSpec.Read(Located(model ?? config.Model.Source, model is null ? written.Folder : Directory.GetCurrentDirectory(), config.Model.Revision, offline, stop));
        var gpu = card is not null ? Gpus.Find(card) : Cuda.TotalBytes() is { } bytes && Cuda.DeviceName() is { } name ? new Gpu(name, (int)(bytes >> 20), Cuda.Capability() >= 80) : null;
        // Without a card the budget, or else the host: the run would be on its CPU, in fp32.
        var device = gpu is not null ? PlanDevice.Of(gpu, config.Model.Dtype) : new PlanDevice("cpu", HostMemory.FreeBytes(), config.Model.Dtype is DType.Bfloat16 or DType.Float16 ? 2 : 4);
        if (config.Memory.BudgetGiB is { } gib)
            device = device.Within(gib);
        if (gpu is not null)
            device = device with { HostBytes = config.Memory.HostBudgetGiB is { } most ? (long)(most * (1L << 30)) : host is not null ? Gpus.Find(host).Bytes : card is null ? HostMemory.FreeBytes() : null };
        var length = Trainer.Data.Batches.Padded(config.Data.MaxLength);
        var plan = MemoryPlan.For(config, spec, device, length);
        var strategies = Strategies.Of(config, spec, device, length, gpus);
        var where = gpu?.Name ?? "this machine's CPU";
        var fault = plan.Fits ? null : Fault(plan, strategies, device, where, length);
        if (json)
        {
            Shell.Print(new
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
                rows = plan.Rows.Select(row => new { name = row.Name, bytes = row.Bytes, place = row.Place, why = row.Why }),
                strategies,
                found = fault?.Found,
                next = fault?.Next,
            });
            return fault is null ? 0 : 1;
        }
        else
        {
            var console = Shell.Output;
            console.MarkupLineInterpolated($"{spec.ModelType}, [bold]{spec.Parameters:N0}[/] parameters; {length:N0} tokens; {where}, {LedgerTable.Size(device.FreeBytes ?? 0)}");
            console.MarkupLineInterpolated($"chosen: {Chosen(config, plan)}");
            console.Write(LedgerTable.Of(plan.Rows, measured: false));
            var table = new Table().Border(TableBorder.Simple).AddColumn("strategy").AddColumn(new TableColumn("peak").RightAligned()).AddColumn("")
                .AddColumn(new TableColumn("speed").RightAligned()).AddColumn(new TableColumn("longest sequence").RightAligned()).AddColumn(new TableColumn("largest micro-batch").RightAligned());
            foreach (var s in strategies)
                table.AddRow(s.Name, LedgerTable.Size(s.PeakBytes), s.Fits ? "[green]fits[/]" : "[red]too large[/]", $"{s.RelativeSpeed:F2}", $"{s.MaxSequence:N0}", $"{s.MaxMicroBatch:N0}");
            console.Write(table);
        }
        return fault is null ? 0 : throw fault;
    }

    /// <summary>What would fit in place of a plan that does not.</summary>
    public static UserFault Fault(MemoryPlan plan, IReadOnlyList<Strategy> strategies, PlanDevice device, string where, int length)
    {
        var single = strategies.Where(s => s.Devices == 1).ToList();
        var (other, smallest) = (single.Where(s => s.Fits).MaxBy(s => s.RelativeSpeed), single.MinBy(s => s.PeakBytes)!);
        var host = plan.HostFits ? "" : $", and {LedgerTable.Size(plan.HostBytes)} of {LedgerTable.Size(device.HostBytes ?? 0)} on the host";
        return new($"This does not fit: {LedgerTable.Size(plan.PeakBytes)} of {LedgerTable.Size(device.FreeBytes ?? 0)} on {where}{host}, with all given up that the settings allow.",
            found: other is null ? $"the smallest strategy, {smallest.Name}, needs {LedgerTable.Size(smallest.PeakBytes)} at {length:N0} tokens"
                : $"{other.Name} would fit: {LedgerTable.Size(other.PeakBytes)}",
            next: other is not null ? $"set adapter.kind = {(other.Name.StartsWith("QLoRA", StringComparison.Ordinal) ? "qlora" : other.Name.StartsWith("LoRA", StringComparison.Ordinal) ? "lora" : "none")} and leave memory's settings out"
                : smallest.MaxSequence > 1 ? $"set data.maxLength to at most {smallest.MaxSequence} with adapter.kind = qlora, or take a larger card"
                : $"take a card with {LedgerTable.Size(smallest.PeakBytes)} or more (--gpu), or a smaller model")
        { Failed = true };
    }

    private static string Chosen(RunConfig config, MemoryPlan plan) =>
        $"{config.Adapter.Kind switch { AdapterKind.Qlora => "QLoRA", AdapterKind.Lora => "LoRA", _ => "full fine-tuning" }}, {plan.Rung}";

    /// <summary>A config.json, or the folder that holds it.</summary>
    private static string Located(string model, string folder, string? revision, bool offline, CancellationToken stop)
    {
        var path = Path.GetFullPath(Path.Combine(folder, model));
        if (File.Exists(path))
            return path;
        return PullCommand.BringConfig(ModelSource.Parse(model, folder), revision, offline, stop).Folder;
    }
}
