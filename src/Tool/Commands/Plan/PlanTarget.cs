using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;

namespace Memopt.Tool.Commands;

/// <summary>The device that a plan is made for, and its name, within the config's budgets.</summary>
internal sealed record PlanTarget(PlanDevice Device, string Name)
{
    /// <summary>The card named, or the one that is here, or else this machine's CPU.</summary>
    /// <param name="config">The settings.</param>
    /// <param name="card">A card or its memory, or null.</param>
    /// <param name="host">Host memory, or null for this machine's where the card is this machine's.</param>
    /// <exception cref="UserFault">There is no such card, or the host's memory is no amount.</exception>
    public static PlanTarget Of(RunConfig config, string? card, string? host)
    {
        var hostBytes = host is null
            ? (long?)null
            : Gpus.Memory(host)
                ?? throw new UserFault("--host takes an amount of memory.", found: host, next: "--host 64GiB");
        return card is not null ? OnCard(config, Gpus.Find(card), hostBytes)
            : Installed() is { } gpu ? OnCard(config, gpu, hostBytes ?? HostMemory.FreeBytes())
            : OnCpu(config, hostBytes);
    }

    /// <summary>The card that is here, or else this machine's CPU.</summary>
    /// <param name="config">The settings.</param>
    /// <param name="onCpu">Whether the card that is here is left alone.</param>
    public static PlanTarget Here(RunConfig config, bool onCpu) =>
        onCpu ? OnCpu(config, hostBytes: null) : Of(config, card: null, host: null);

    private static Gpu? Installed() =>
        Cuda.TotalBytes() is { } bytes && Cuda.DeviceName() is { } name
            ? new Gpu(name, (int)(bytes >> 20), Cuda.Capability() >= 80)
            : null;

    private static PlanTarget OnCard(RunConfig config, Gpu gpu, long? hostBytes)
    {
        var most = config.Memory.HostBudgetGiB is { } budget ? (long)(budget * (1L << 30)) : (long?)null;
        return new(
            Budgeted(config, PlanDevice.Of(gpu, config.Model.Dtype)) with
            {
                HostBytes = hostBytes is null || most < hostBytes ? most ?? hostBytes : hostBytes,
            },
            gpu.Name
        );
    }

    /// <summary>Without a card the budget, or else the host: the run would be on its CPU, in fp32.</summary>
    private static PlanTarget OnCpu(RunConfig config, long? hostBytes)
    {
        var device = new PlanDevice(
            "cpu",
            hostBytes ?? HostMemory.FreeBytes(),
            config.Model.Dtype is DType.Bfloat16 or DType.Float16 ? 2 : 4
        );
        return new(Budgeted(config, device), hostBytes is null ? "this machine's CPU" : "a CPU");
    }

    private static PlanDevice Budgeted(RunConfig config, PlanDevice device) =>
        (config.Memory.BudgetGiB is { } gib ? device.Within(gib) : device) with
        {
            Stages = config.Distributed.Pipeline,
        };
}
