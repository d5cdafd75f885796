using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary>Looks at what a config that can be read names: the model, the adapter to go on from, a sample of the data,
/// and the memory of the device it is to train on.</summary>
internal sealed class ConfigInspection(ProjectConfig given, bool offline, CancellationToken stop)
{
    /// <summary>Rows of each file that are read.</summary>
    private const int Sampled = 100;

    /// <summary>How long a server may take to give a model's config and tokenizer: a build does not wait for a network
    /// that is away.</summary>
    private static readonly TimeSpan patience = TimeSpan.FromSeconds(20);

    private readonly List<Problem> problems = [];
    private ProjectConfig config = given;

    public IReadOnlyList<Problem> Problems => problems;

    /// <summary>The plan on the device; null when no device is known, or a problem hides it.</summary>
    public MemoryPlan? Plan { get; private set; }

    /// <summary>Collects the problems. A model or an adapter that cannot be inspected ends it: the rest depends on
    /// both.</summary>
    /// <param name="card">The card it is to train on, or null.</param>
    /// <param name="budget">GiB that it may take, or null.</param>
    public void Run(string? card, double? budget)
    {
        if (FetchModel() is not { } model || ReadSpec(model.Folder) is not { } spec || !SettleAdapter(spec))
            return;
        SampleData(model.Folder, spec);
        if (Target(card, budget) is { } target)
            PlanMemory(spec, target, asError: budget is not null);
    }

    private Snapshot? FetchModel()
    {
        using var limited = CancellationTokenSource.CreateLinkedTokenSource(stop);
        limited.CancelAfter(patience);
        try
        {
            return PullCommand.FetchText(
                ModelSource.Parse(config.Settings.Model.Source, config.Folder),
                config.Settings.Model.Revision,
                offline,
                limited.Token
            );
        }
        catch (Exception e) when (e is UserFault or OperationCanceledException && !stop.IsCancellationRequested)
        {
            var why = e is UserFault fault ? Text(fault) : $"no answer within {patience.TotalSeconds:N0} s";
            Add("model.source", NotInspected(why), "MEMOPT0009", warning: true);
            return null;
        }
    }

    private ModelSpec? ReadSpec(string folder)
    {
        try
        {
            return ModelSpec.Read(folder);
        }
        catch (UserFault fault)
        {
            Add("model.source", Text(fault), "MEMOPT0009");
            return null;
        }
    }

    /// <summary>Takes over the settings of the adapter that training begins with; false when it cannot.</summary>
    private bool SettleAdapter(ModelSpec spec)
    {
        try
        {
            config = StartingAdapter.Settle(AdapterSource.Locate(config, offline, (_, _) => { }, stop), spec);
            return true;
        }
        catch (UserFault fault)
        {
            if (fault.Problems.Count > 0)
                problems.AddRange(fault.Problems);
            else
                Add("adapter.from", Text(fault), "MEMOPT0005");
        }
        catch (TrackingException fault)
        {
            Add("adapter.from", NotInspected(fault.Message), "MEMOPT0009", warning: true);
        }
        return false;
    }

    private void SampleData(string folder, ModelSpec spec) =>
        problems.AddRange(Dataset.Sample(config, new ChatEncoder(folder, spec.EndOfTurn, stop: stop), Sampled));

    /// <summary>What the plan is made for; null when nothing says.</summary>
    private PlanTarget? Target(string? card, double? budget)
    {
        var gpu = card is null ? null : Gpus.Find(card);
        var device = gpu is null ? null : PlanDevice.Of(gpu, config.Settings.Model.Dtype);
        if ((budget ?? (gpu is null ? config.Settings.Memory.BudgetGiB : null)) is { } gib)
            return new((device ?? AnyCard()).Within(gib), $"a budget of {gib} GiB");
        return device is null ? null : new(device, gpu!.Name);
    }

    /// <summary>A card of which only its memory will be known.</summary>
    private PlanDevice AnyCard()
    {
        var single = config.Settings.Model.Dtype == DType.Float32;
        return new("cuda", 0, single ? 4 : 2) { FusedAttention = !single };
    }

    private void PlanMemory(ModelSpec spec, PlanTarget target, bool asError)
    {
        var planned = new TargetPlan(config.Settings, spec, target, Batches.Padded(config.Settings.Data.MaxLength));
        Plan = planned.Plan;
        if (planned.Fault() is { } fault)
            Add("model.source", $"{fault.Message} {fault.Found}; {fault.Next}", "MEMOPT0010", warning: !asError);
    }

    private void Add(string setting, string text, string code, bool warning = false) =>
        problems.Add(RunConfigFile.At(config, setting, text, code) with { Warning = warning });

    private static string NotInspected(string why) =>
        $"could not be inspected; data and memory checks were skipped: {why}";

    private static string Text(UserFault fault) => $"{fault.Message} {fault.Found}".TrimEnd();
}
