using Memopt.Tracking;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Settings that contradict each other, which no single setting shows.</summary>
internal static class ConfigRules
{
    private static readonly IReadOnlyList<Rule> rules =
    [
        Against(
            "train.microBatch",
            config =>
                config.Train.MicroBatch is { } micro && config.Train.BatchSize % micro != 0
                    ? $"is {micro}, which does not divide train.batchSize = {config.Train.BatchSize}"
                    : null
        ),
        Against(
            "train.betas",
            config => config.Train.Betas.Count != 2 || config.Train.Betas.Any(beta => beta is < 0 or >= 1),
            "must be two numbers from 0 to below 1"
        ),
        Against(
            "adapter.from",
            config => config.Adapter is { Kind: AdapterKind.None, From: not null },
            "needs adapter.kind lora or qlora"
        ),
        Patterns("adapter/rankPattern", config => config.Adapter.RankPattern.Keys),
        Patterns("adapter/alphaPattern", config => config.Adapter.AlphaPattern.Keys),
        Against(
            "memory.offloadActivations",
            config =>
                config.Memory
                    is { OffloadActivations: true, Recompute: false }
                        or { OffloadActivations: true, Strategy: MemoryStrategy.Manual, Recompute: not true },
            "needs memory.recompute = true"
        ),
        Against(
            "memory.streamLayers",
            config => config.Memory.StreamLayers > 0 && config.Adapter.Kind == AdapterKind.None,
            "needs adapter.kind lora or qlora: weights that are trained cannot be streamed"
        ),
        Against(
            "distributed.strategy",
            config =>
                config.Distributed
                    is { Pipeline: > 1, Strategy: DistributedStrategy.Zero2 or DistributedStrategy.Zero3 },
            "with distributed.pipeline is ddp, zero1 or auto: zero2 and zero3 would reduce or gather in every "
                + "micro-batch, which a stage computes in turns"
        ),
        Against(
            "distributed.pipeline",
            config => config.Distributed is { Pipeline: > 1, Tensor: > 1 } or { Pipeline: > 1, Context: > 1 },
            "does not go with distributed.tensor or distributed.context: keep one of them above 1"
        ),
        Against(
            "data.packing",
            config => config.Data is { Packing: true, MaxLength: < 2 },
            "needs a longer data.maxLength"
        ),
        Against(
            "tracking.best",
            config =>
                AdapterRegistry.IsRule(config.Tracking.Best)
                    ? null
                    : $"is \"{config.Tracking.Best}\": write min(eval_loss), max(eval_accuracy) or another metric"
        ),
        Against(
            "tracking.register",
            config =>
                config.Tracking.Register is { } name && AdapterRegistry.NameOf(name) != name
                    ? $"is \"{name}\": a name has letters, digits, . _ and -"
                    : null
        ),
        Against(
            "data.evalShare",
            config => config.Data is { EvalShare: > 0, Eval: not null },
            "and data.eval are both written: keep one"
        ),
    ];

    /// <summary>Adds a problem for each rule that a config breaks.</summary>
    public static void Check(RunConfig config, ConfigProblems problems)
    {
        foreach (var rule in rules)
        {
            foreach (var (setting, message) in rule.Broken(config))
                problems.AddOf(setting, message, rule.Code);
        }
    }

    /// <param name="Code">A code of docs/diagnostics.md.</param>
    /// <param name="Broken">The settings of a config that break the rule, each with a message.</param>
    private sealed record Rule(string Code, Func<RunConfig, IEnumerable<(string Setting, string Message)>> Broken);

    private static Rule Against(string setting, Func<RunConfig, bool> broken, string message) =>
        Against(setting, config => broken(config) ? message : null);

    private static Rule Against(string setting, Func<RunConfig, string?> message) =>
        new("MEMOPT0006", config => message(config) is { } text ? [(setting, text)] : []);

    /// <summary>The keys of a map are patterns of modules.</summary>
    private static Rule Patterns(string map, Func<RunConfig, IEnumerable<string>> keys) =>
        new(
            "MEMOPT0004",
            config =>
                keys(config)
                    .Select(key => (Setting: $"{map}/{key}", Message: ModulePattern.Problem(key)))
                    .Where(each => each.Message is not null)
                    .Select(each => (each.Setting, each.Message!))
        );
}
