using Memopt.Core;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;

namespace Memopt.Tool.Commands;

/// <summary>The plan of a training on a device, and what would fit in its place when it does not.</summary>
/// <param name="Settings">The settings.</param>
/// <param name="Spec">The model.</param>
/// <param name="Target">The device.</param>
/// <param name="Length">Longest row that is trained on, tokens.</param>
/// <param name="EvalLength">Longest row that is evaluated, tokens; 0 when none is.</param>
internal sealed record TargetPlan(RunConfig Settings, ModelSpec Spec, PlanTarget Target, int Length, int EvalLength = 0)
{
    public MemoryPlan Plan { get; } = MemoryPlan.For(Settings, Spec, Target.Device, Length, EvalLength);

    /// <summary>The method and what was given up for memory, in words.</summary>
    public string Chosen
    {
        get
        {
            var method = Settings.Adapter.Kind switch
            {
                AdapterKind.Qlora => "QLoRA",
                AdapterKind.Lora => "LoRA",
                _ => "full fine-tuning",
            };
            return $"{method}, {Plan.Rung}";
        }
    }

    public IReadOnlyList<Strategy> Strategies(int devices) =>
        Trainer.Plan.Strategies.Of(Settings, Spec, Target.Device, Length, devices);

    /// <summary>What would fit in place of this plan; null when it fits.</summary>
    public UserFault? Fault() => Plan.Fits ? null : Fault(Strategies(devices: 1));

    /// <inheritdoc cref="Fault()"/>
    /// <param name="strategies">What else could be done.</param>
    public UserFault? Fault(IReadOnlyList<Strategy> strategies)
    {
        if (Plan.Fits)
            return null;
        var single = strategies.Where(s => s.Devices == 1).ToList();
        var (other, smallest) = (
            single.Where(s => s.Fits).MaxBy(s => s.RelativeSpeed),
            single.MinBy(s => s.PeakBytes)!
        );
        return new(Misfit(), found: Found(other, smallest), next: Next(other, smallest)) { Failed = true };
    }

    private string Misfit()
    {
        var host = Target.Device.HostBytes ?? 0;
        var onHost = Plan.HostFits
            ? ""
            : $", and {LedgerTable.Size(Plan.HostBytes)} of {LedgerTable.Size(host)} on the host";
        return $"This does not fit: {LedgerTable.Size(Plan.PeakBytes)} of "
            + $"{LedgerTable.Size(Target.Device.FreeBytes ?? 0)} on {Target.Name}{onHost}, with all given up that the "
            + "settings allow.";
    }

    private string Found(Strategy? other, Strategy smallest) =>
        other is null
            ? $"the smallest strategy, {smallest.Name}, needs {LedgerTable.Size(smallest.PeakBytes)} at "
                + $"{Length:N0} tokens"
            : $"{other.Name} would fit: {LedgerTable.Size(other.PeakBytes)}";

    private static string Next(Strategy? other, Strategy smallest) =>
        other is not null ? $"set adapter.kind = {KindOf(other.Name)} and leave memory's settings out"
        : smallest.MaxSequence > 1
            ? $"set data.maxLength to at most {smallest.MaxSequence} with adapter.kind = qlora, or take a "
                + "larger card"
        : $"take a card with {LedgerTable.Size(smallest.PeakBytes)} or more (--gpu), or a smaller model";

    private static string KindOf(string strategy) =>
        strategy.StartsWith("QLoRA", StringComparison.Ordinal) ? "qlora"
        : strategy.StartsWith("LoRA", StringComparison.Ordinal) ? "lora"
        : "none";
}
